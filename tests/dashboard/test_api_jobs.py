"""Submitting, listing, showing and cancelling jobs over HTTP."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dashboard.queries.paging import MAX_ID
from farm.progress import Progress, ProgressBoard
from farm.settings import Settings
from farm.states import Stage
from farm.transitions import finish_base

PROBLEM = "application/problem+json"
RowCounts = Callable[[], dict[str, int]]


def post(client: FlaskClient, **body: Any) -> TestResponse:
    return client.post("/api/v1/jobs", json=body)


def upload(client: FlaskClient, name: str, data: bytes, **fields: str) -> TestResponse:
    return client.post(
        "/api/v1/jobs", data={"file": (io.BytesIO(data), name), **fields}, content_type="multipart/form-data"
    )


def refused(response: TestResponse, status: int) -> dict[str, Any]:
    """The problem document of an error answer."""
    assert response.status_code == status, response.text
    assert response.mimetype == PROBLEM
    document: dict[str, Any] = json.loads(response.data)
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    return document


def test_prompts_as_json(client: FlaskClient) -> None:
    response = post(client, prompts=["a fox", "an owl"], images_per_prompt=2, seed=5, name="Animals")
    assert response.status_code == 201
    receipt = response.get_json()
    assert receipt == {
        "id": 1,
        "url": "/api/v1/jobs/1",
        "image_count": 4,
        "batch_count": 1,
        "seed": 5,
        "ignored_columns": [],
        "test_images": None,
    }
    assert response.headers["Location"] == "/api/v1/jobs/1"
    images = client.get("/api/v1/jobs/1/images").get_json()["images"]
    assert [(image["prompt"], image["seed"]) for image in images] == [
        ("a fox", 5),
        ("a fox", 6),
        ("an owl", 7),
        ("an owl", 8),
    ]


def test_rows_as_json_override_the_job(client: FlaskClient) -> None:
    rows = [{"prompt": "a fox", "seed": 9, "size": "256x512"}, {"prompt": "an owl", "steps": 12}]
    assert post(client, rows=rows, steps=20, refiner_split=None).status_code == 201
    fox, owl = client.get("/api/v1/jobs/1/images").get_json()["images"]
    assert (fox["seed"], fox["width"], fox["height"], fox["num_inference_steps"]) == (9, 256, 512, 20)
    assert (owl["num_inference_steps"], owl["refiner_split"]) == (12, None)


def test_a_file_with_form_fields(client: FlaskClient) -> None:
    table = b"prompt,seed,mood\na fox,3,calm\nan owl,,wild\n"
    response = upload(client, "prompts.csv", table, size="256x256", refiner_split="none", seed="100")
    assert response.status_code == 201
    assert response.get_json()["ignored_columns"] == ["mood"]
    fox, owl = client.get("/api/v1/jobs/1/images").get_json()["images"]
    assert (fox["seed"], owl["seed"]) == (3, 101)
    assert fox["refiner_split"] is None


@pytest.mark.parametrize(
    ("body", "field", "pointer"),
    [
        ({}, "prompt", None),
        ({"prompts": []}, "prompt", None),
        ({"prompts": "a fox"}, "prompts", "/prompts"),
        ({"prompts": ["a fox", "  "]}, "prompt", "/prompts/1"),
        ({"prompts": [5]}, "prompt", "/prompts/0"),
        ({"prompts": ["a\0b"]}, "prompt", "/prompts/0"),
        ({"prompts": ["\ud800"]}, "prompt", "/prompts/0"),
        ({"prompts": ["x" * 10_001]}, "prompt", "/prompts/0"),
        ({"prompts": ["a"], "rows": []}, "rows", "/rows"),
        ({"rows": ["a fox"]}, "rows", "/rows/0"),
        ({"rows": [{"prompt": "a"}, {"prompt": "b", "width": 100}]}, "width", "/rows/1/width"),
        ({"rows": [{"prompt": "a"}, {"steps": 5}]}, "prompt", "/rows/1"),
        ({"rows": [{"prompt": "a", "size": "big"}]}, "size", "/rows/0/size"),
        ({"rows": [{"prompt": "a", "a/b~": 1}]}, "a/b~", "/rows/0/a~1b~0"),
        ({"prompts": ["a"], "colour": "red"}, "colour", "/colour"),
        ({"prompts": ["a"], "\ud800": 1}, "\ud800", "/\ud800"),
        ({"prompts": ["a"], "seed": -1}, "seed", "/seed"),
        ({"prompts": ["a"], "seed": 2**63}, "seed", "/seed"),
        ({"prompts": ["a"], "seed": 2**63 - 1, "images_per_prompt": 2}, "seed", "/seed"),
        ({"prompts": ["a"], "seed": 10**400}, "seed", "/seed"),
        ({"prompts": ["a"], "width": 10**30}, "width", "/width"),
        ({"prompts": ["a"], "num_inference_steps": 0}, "num_inference_steps", "/num_inference_steps"),
        ({"prompts": ["a"], "guidance_scale": float("nan")}, "guidance_scale", "/guidance_scale"),
        ({"prompts": ["a"], "refiner_split": 1.5}, "refiner_split", "/refiner_split"),
        ({"prompts": ["a"], "pipeline": "sd\0xl"}, "pipeline", "/pipeline"),
        ({"prompts": ["a"], "pipeline": ["tiny"]}, "pipeline", "/pipeline"),
        ({"prompts": ["a"], "name": "a\0b"}, "name", "/name"),
        ({"prompts": ["a"], "name": "\ud800"}, "name", "/name"),
        ({"prompts": ["a"], "priority": 10**12}, "priority", "/priority"),
        ({"prompts": ["a"], "size": {"width": 5}}, "size", "/size"),
        ({"prompts": ["a"], "negative_prompt": "a\0b"}, "negative_prompt", "/negative_prompt"),
    ],
)
def test_an_invalid_submission_is_refused_and_leaves_no_row(
    client: FlaskClient, row_counts: RowCounts, body: dict[str, Any], field: str, pointer: str | None
) -> None:
    document = refused(client.post("/api/v1/jobs", data=json.dumps(body), content_type="application/json"), 422)
    assert [problem["field"] for problem in document["errors"]] == [field]
    assert document["errors"][0].get("pointer") == pointer
    assert document["errors"][0]["message"]
    assert document["error_count"] == 1
    assert not any(row_counts().values())


def test_every_problem_of_a_file_is_listed_with_its_line(client: FlaskClient, row_counts: RowCounts) -> None:
    document = refused(upload(client, "p.csv", b"prompt,width\na,256\nb,100\n,256\n"), 422)
    assert [(problem["line"], problem["field"]) for problem in document["errors"]] == [(3, "width"), (4, "prompt")]
    assert not any(row_counts().values())


def test_a_flood_of_problems_is_cut_and_counted(client: FlaskClient) -> None:
    document = refused(post(client, prompts=[" "] * 250), 422)
    assert (len(document["errors"]), document["error_count"]) == (100, 250)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.exe", b"x"),
        ("", b"x"),
        ("p.txt", b""),
        ("p.txt", b"\xff"),
        ("p.txt", b"a\0b"),
        ("p.jsonl", b'{"\\ud800": 1}'),
    ],
)
def test_an_unreadable_file_is_refused(client: FlaskClient, row_counts: RowCounts, name: str, data: bytes) -> None:
    refused(upload(client, name, data), 422)
    assert not any(row_counts().values())


def test_a_form_without_a_file_is_refused(client: FlaskClient) -> None:
    response = client.post("/api/v1/jobs", data={"seed": "5"}, content_type="multipart/form-data")
    assert refused(response, 422)["errors"][0]["field"] == "file"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe\xfa", b"[" * 100_000, b'{"prompts": ["a"], "seed": ' + b"9" * 5000 + b"}"],
    ids=["empty", "cut off", "no text", "deep", "endless number"],
)
def test_malformed_json_is_a_bad_request(client: FlaskClient, row_counts: RowCounts, body: bytes) -> None:
    refused(client.post("/api/v1/jobs", data=body, content_type="application/json"), 400)
    assert not any(row_counts().values())


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"5", b"null"])
def test_json_that_is_no_object_is_refused(client: FlaskClient, body: bytes) -> None:
    refused(client.post("/api/v1/jobs", data=body, content_type="application/json"), 422)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_media_types_are_unsupported(client: FlaskClient, row_counts: RowCounts, media_type: str) -> None:
    refused(client.post("/api/v1/jobs", data=b"prompt=a", content_type=media_type), 415)
    assert not any(row_counts().values())


def test_a_body_beyond_the_limit_is_too_large(
    let_in,
    make_app: Callable[[Settings], Flask],
    settings: Settings,
    row_counts: RowCounts,
    large_upload: dict[str, Any],
) -> None:
    client = let_in(make_app(settings.model_copy(update={"max_upload_mib": 1})))
    document = refused(client.post("/api/v1/jobs", **large_upload), 413)
    assert "1 MiB" in document["detail"]
    refused(client.post("/api/v1/jobs", data=b" " * 2**21, content_type="application/json"), 413)
    assert not any(row_counts().values())


def test_jobs_are_paged_by_key_newest_first(client: FlaskClient, farm) -> None:
    for _ in range(4):
        farm.submit()
    first = client.get("/api/v1/jobs?limit=2").get_json()
    assert [job["id"] for job in first["jobs"]] == [4, 3]
    # A job that arrives between two pages moves nothing.
    farm.submit()
    second = client.get("/api/v1/jobs", query_string={"limit": 2, "before": first["next"]}).get_json()
    assert [job["id"] for job in second["jobs"]] == [2, 1]
    assert second["next"] is None


def test_jobs_can_be_chosen_by_state(client: FlaskClient, farm) -> None:
    farm.submit()
    done = farm.complete()
    jobs = client.get("/api/v1/jobs?state=completed").get_json()["jobs"]
    assert [(job["id"], job["state"]) for job in jobs] == [(done, "completed")]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "before=-1",
        f"before={2**63}",
        "before=" + "0" * 5000,
        "before=%C2%B2",
        "state=done",
    ],
)
def test_unreadable_query_parameters_are_refused_by_name(client: FlaskClient, query: str) -> None:
    document = refused(client.get(f"/api/v1/jobs?{query}"), 422)
    assert document["errors"][0]["field"] == query.split("=", maxsplit=1)[0]


def test_a_job_in_all_its_detail(client: FlaskClient, farm) -> None:
    job_id = farm.submit(4, name="Foxes", negative_prompt="blurry")
    farm.render(job_id, 1)
    farm.fail(farm.start(job_id), "black picture")
    farm.fail(farm.start(job_id), "black picture")
    job = client.get(f"/api/v1/jobs/{job_id}").get_json()
    assert (job["id"], job["name"], job["state"], job["pipeline"]) == (job_id, "Foxes", "running", "tiny")
    assert job["images"] == {"total": 4, "completed": 1, "failed": 2, "cancelled": 0, "pending": 1, "removed": 0}
    assert job["errors"] == [{"message": "black picture", "count": 2}]
    assert job["spec"]["negative_prompt"] == "blurry"
    assert job["spec"]["seed"] == 7
    assert job["progress"] == 0.75
    assert job["images_per_minute"] > 0
    assert job["seconds_left"] > 0
    assert job["created_at"]
    assert job["started_at"]
    assert job["finished_at"] is None


def test_progress_counts_the_steps_of_running_batches(client: FlaskClient, farm, settings: Settings) -> None:
    board = ProgressBoard(settings)
    job_id = farm.submit(2, refiner_split=0.8)

    def progress() -> float:
        share: float = client.get(f"/api/v1/jobs/{job_id}").get_json()["progress"]
        return share

    assert progress() == 0
    held = farm.start(job_id)
    board.write(held.batch_id, Progress(Stage.BASE, 4, 8))
    assert progress() == pytest.approx(0.2)
    assert finish_base(farm.engine, held.batch_id, held.attempt, "latents", "00", 1.0)
    # What the base reported says nothing about the refiner.
    assert progress() == pytest.approx(0.4)
    board.write(held.batch_id, Progress(Stage.REFINER, 1, 2))
    assert progress() == pytest.approx(0.45)


def test_cancel_is_idempotent(client: FlaskClient, farm) -> None:
    job_id = farm.submit(3)
    farm.render(job_id, 1)
    for _ in range(2):
        response = client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert response.status_code == 200
        job = response.get_json()
        assert job["state"] == "cancelled"
        assert job["images"] == {"total": 3, "completed": 1, "failed": 0, "cancelled": 2, "pending": 0, "removed": 0}
        assert job["finished_at"]


def test_a_job_that_ended_otherwise_cannot_be_cancelled(client: FlaskClient, farm) -> None:
    job_id = farm.complete()
    document = refused(client.post(f"/api/v1/jobs/{job_id}/cancel"), 409)
    assert "completed" in document["detail"]
    assert client.get(f"/api/v1/jobs/{job_id}").get_json()["state"] == "completed"


@pytest.mark.parametrize("job_id", ["1", "0", str(MAX_ID), str(MAX_ID + 1), "9" * 30, "9" * 5000, "x", "-1", "%00"])
@pytest.mark.parametrize("rest", ["", "/images", "/images/0", "/images/0/file", "/images/0/thumbnail"])
def test_unknown_jobs_are_not_found(client: FlaskClient, job_id: str, rest: str) -> None:
    refused(client.get(f"/api/v1/jobs/{job_id}{rest}"), 404)


def test_cancelling_an_unknown_job_is_not_found(client: FlaskClient) -> None:
    refused(client.post("/api/v1/jobs/1/cancel"), 404)


def test_unknown_addresses_and_methods(client: FlaskClient) -> None:
    refused(client.get("/api/v1/nothing"), 404)
    response = client.delete("/api/v1/jobs")
    refused(response, 405)
    assert "POST" in response.headers["Allow"]
