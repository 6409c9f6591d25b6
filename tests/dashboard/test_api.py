"""The HTTP API as a program sees it."""

from io import BytesIO

import pytest
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import Engine, func, select

from dashboard.app import create_app
from dashboard.context import EXTENSION
from farm.claims import claim
from farm.models import Batch, Job, Worker
from farm.models import Image as ImageRow
from farm.settings import Settings
from farm.states import Stage
from farm.transitions import fail_attempt, queue_ready_batches, register_worker

SPEC = {"refiner_split": None, "batch_size": 2, "seed": 5}


def submit(client: FlaskClient, count: int = 3, **fields) -> int:
    body = {**SPEC, **fields, "prompts": [f"prompt {n}" for n in range(count)]}
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json["id"]


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        tables = (Job, Batch, ImageRow)
        return sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def test_a_job_is_submitted_rendered_and_fetched(client: FlaskClient, render) -> None:
    job_id = submit(client)
    assert client.get(f"/api/v1/jobs/{job_id}").json["state"] == "queued"
    render(job_id)
    running = client.get(f"/api/v1/jobs/{job_id}").json
    assert running["state"] == "running"
    assert running["images"] == {"total": 3, "completed": 2, "failed": 0, "cancelled": 0, "pending": 1, "removed": 0}
    assert running["progress"] == pytest.approx(2 / 3, abs=1e-3)
    assert running["seconds_left"] >= 0
    render(job_id)
    done = client.get(f"/api/v1/jobs/{job_id}").json
    assert (done["state"], done["progress"], done["errors"]) == ("completed", 1.0, [])
    assert done["spec"]["seed"] == 5

    images = client.get(done["images_url"]).json["images"]
    assert [(image["index"], image["seed"], image["prompt"]) for image in images] == [
        (0, 5, "prompt 0"),
        (1, 6, "prompt 1"),
        (2, 7, "prompt 2"),
    ]
    assert images[2]["download_name"] == "000002_seed7.png"
    assert images[2]["num_inference_steps"] == 10
    assert client.get(images[2]["url"]).json == images[2]
    picture = client.get(images[2]["file_url"] + "?download=1")
    assert picture.headers["Content-Disposition"] == 'attachment; filename="000002_seed7.png"'
    assert "immutable" in picture.headers["Cache-Control"]
    assert Image.open(BytesIO(picture.data)).size == (64, 64)
    again = client.get(images[2]["file_url"], headers={"If-None-Match": picture.headers["ETag"]})
    assert again.status_code == 304
    assert client.get(images[2]["thumbnail_url"]).mimetype == "image/webp"


def test_rows_and_files_are_taken_too(client: FlaskClient) -> None:
    rows_answer = client.post("/api/v1/jobs", json={"rows": [{"prompt": "a", "steps": 4}, {"prompt": "b", "seed": 1}]})
    assert rows_answer.json["image_count"] == 2
    form = {"file": (BytesIO(b"Prompt\tCategory\na\tx\n"), "p.tsv"), "steps": "4", "refiner_split": "none"}
    file_answer = client.post("/api/v1/jobs", data=form)
    assert file_answer.status_code == 201
    assert file_answer.json["ignored_columns"] == ["Category"]
    assert client.get(file_answer.json["url"]).json["spec"]["refiner_split"] is None


def test_lists_are_paged_by_key(client: FlaskClient) -> None:
    ids = [submit(client, 5) for _ in range(5)]
    first = client.get("/api/v1/jobs?limit=2").json
    assert [job["id"] for job in first["jobs"]] == [ids[4], ids[3]]
    second = client.get(f"/api/v1/jobs?limit=2&before={first['next']}").json
    assert [job["id"] for job in second["jobs"]] == [ids[2], ids[1]]
    last = client.get(f"/api/v1/jobs?limit=2&before={second['next']}").json
    assert ([job["id"] for job in last["jobs"]], last["next"]) == ([ids[0]], None)
    page = client.get(f"/api/v1/jobs/{ids[0]}/images?limit=3").json
    assert [image["index"] for image in page["images"]] == [0, 1, 2]
    rest = client.get(f"/api/v1/jobs/{ids[0]}/images?limit=3&after={page['next']}").json
    assert ([image["index"] for image in rest["images"]], rest["next"]) == ([3, 4], None)
    assert client.get("/api/v1/jobs?state=running").json["jobs"] == []


def test_cancel_may_be_repeated_but_not_after_another_end(client: FlaskClient, render) -> None:
    job_id = submit(client)
    render(job_id)
    cancelled = client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    assert cancelled.json["images"] == {
        "total": 3,
        "completed": 2,
        "failed": 0,
        "cancelled": 1,
        "pending": 0,
        "removed": 0,
    }
    assert client.post(f"/api/v1/jobs/{job_id}/cancel").status_code == 200
    done = submit(client, 1)
    render(done)
    refused = client.post(f"/api/v1/jobs/{done}/cancel")
    assert (refused.status_code, refused.mimetype) == (409, "application/problem+json")


def test_failed_images_say_why(client: FlaskClient, engine: Engine) -> None:
    job_id = submit(client, 1)
    (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", 30)
    fail_attempt(engine, sent.batch_id, sent.attempt, "ValueError: no", max_failures=1)
    job = client.get(f"/api/v1/jobs/{job_id}").json
    assert (job["state"], job["errors"]) == ("failed", [{"message": "ValueError: no", "count": 1}])
    (image,) = client.get(job["images_url"]).json["images"]
    assert (image["state"], image["error"], image["file_url"]) == ("failed", "ValueError: no", None)
    assert client.get(f"/api/v1/jobs/{job_id}/images/0/file").status_code == 404


def test_workers_tell_what_they_do(client: FlaskClient, engine: Engine, settings: Settings) -> None:
    register_worker(
        engine,
        Worker(
            id="w",
            hostname="h",
            process_id=1,
            device="cuda:1",
            device_name="a GPU",
            pipeline="tiny",
            stages=["refiner", "base"],
        ),
    )
    job_id = submit(client, 2)
    (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", 30)
    (worker,) = client.get("/api/v1/workers").json["workers"]
    assert (worker["device"], worker["alive"], worker["stages"]) == ("cuda:1", True, ["refiner", "base"])
    (batch,) = worker["batches"]
    assert (batch["job_id"], batch["stage"], batch["image_count"]) == (job_id, "base", 2)


def test_the_catalog_is_listed(client: FlaskClient) -> None:
    entries = {entry["name"]: entry for entry in client.get("/api/v1/pipelines").json["pipelines"]}
    assert entries.keys() == {
        "demo",
        "tiny",
        "tiny-turbo",
        "sdxl-1.0",
        "sdxl-turbo",
        "sdxl-lightning",
        "sdxl-lcm",
        "sdxl-lcm-lora",
    }
    assert entries["tiny"]["default"]
    assert entries["sdxl-1.0"]["defaults"]["width"] == 1024


BAD_BODIES = [
    ({"prompts": []}, "prompt"),
    ({"prompts": [""]}, "prompt"),
    ({"prompts": ["a\0b"]}, "prompt"),
    ({"prompts": [7]}, "prompt"),
    ({"prompts": "a"}, "prompts"),
    ({"prompts": ["x" * 100_000]}, "prompt"),
    ({"rows": [{"steps": 3}]}, "prompt"),
    ({"rows": [3]}, "rows"),
    ([], "body"),
    ({"prompts": ["a"], "width": 250}, "width"),
    ({"prompts": ["a"], "steps": 10_000}, "num_inference_steps"),
    ({"prompts": ["a"], "refiner_split": 0}, "refiner_split"),
    ({"prompts": ["a"], "pipeline": "none"}, "pipeline"),
    ({"prompts": ["a"], "seed": 2**70}, "seed"),
    ({"prompts": ["a"], "name": "n\0"}, "name"),
    ({"prompts": ["a"], "stepz": 3}, "stepz"),
]


@pytest.mark.parametrize(("body", "field"), BAD_BODIES, ids=lambda value: str(value)[:40])
def test_bad_submissions_are_problems_and_leave_no_row(client: FlaskClient, engine: Engine, body, field) -> None:
    answer = client.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert answer.json["errors"][0]["field"] == field
    assert answer.json["errors"][0]["message"]
    assert rows(engine) == 0


def test_bad_files_name_their_line(client: FlaskClient, engine: Engine) -> None:
    answer = client.post("/api/v1/jobs", data={"file": (BytesIO(b"ok\n\xff\n"), "p.txt")})
    assert answer.status_code == 422
    assert answer.json["errors"] == [
        {"field": "prompt", "line": 2, "message": "byte 3 (0xff) is not UTF-8; save the file as UTF-8"}
    ]
    assert client.post("/api/v1/jobs", data={"steps": "3", "x": (BytesIO(b""), "y")}).status_code == 422
    assert rows(engine) == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/jobs/999", 404),
        (f"/api/v1/jobs/{2**70}", 404),
        ("/api/v1/jobs/999/images", 404),
        ("/api/v1/jobs/1/images/0/file", 404),
        (f"/api/v1/jobs/1/images/{2**40}", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/jobs?limit=0", 422),
        ("/api/v1/jobs?limit=x", 422),
        ("/api/v1/jobs?before=-1", 422),
        ("/api/v1/jobs?state=maybe", 422),
    ],
)
def test_what_cannot_be_found_or_read_is_a_problem(client: FlaskClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert answer.json["detail"]


def test_other_bodies_are_refused(client: FlaskClient) -> None:
    assert client.post("/api/v1/jobs", data="{", content_type="application/json").status_code == 400
    assert client.post("/api/v1/jobs", data="a", content_type="text/plain").status_code == 415
    assert client.delete("/api/v1/jobs").status_code == 405


def test_other_sites_cannot_post(client: FlaskClient, engine: Engine) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = client.post("/api/v1/jobs", json={"prompts": ["a"]}, headers=headers)
        assert answer.status_code == 403
    assert rows(engine) == 0
    assert (
        client.post("/api/v1/jobs", json={"prompts": ["a"]}, headers={"Origin": "http://localhost"}).status_code == 201
    )


def test_health(client: FlaskClient, settings: Settings) -> None:
    assert client.get("/healthz").json == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["checks"]) == (200, {"database": "ok", "broker": "ok", "store": "ok"})


def test_readiness_names_what_does_not_answer(settings: Settings) -> None:
    lame = Settings(**{**settings.model_dump(exclude_unset=True), "broker_url": "redis://127.0.0.1:1/0"})
    app = create_app(lame)
    answer = app.test_client().get("/readyz")
    app.extensions[EXTENSION].engine.dispose()
    assert answer.status_code == 503
    assert answer.json["checks"]["database"] == "ok"
    assert answer.json["checks"]["broker"] != "ok"
