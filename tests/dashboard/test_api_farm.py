"""Workers, pipelines and signs of life over HTTP."""

from collections.abc import Callable
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from farm.embedded import free_port
from farm.models import Worker
from farm.progress import Progress, ProgressBoard
from farm.settings import Settings
from farm.states import Stage
from farm.transitions import dismiss_worker


def test_workers_and_what_they_do(client: FlaskClient, farm, settings: Settings) -> None:
    farm.add_worker("busy")
    farm.add_worker("idle", images_completed=3)
    job_id = farm.submit(["a fox", "an owl"], batch_size=2)
    held = farm.start(job_id, worker_id="busy")
    ProgressBoard(settings).write(held.batch_id, Progress(Stage.BASE, 3, 10))
    busy, idle = client.get("/api/v1/workers").get_json()["workers"]
    assert (busy["id"], busy["alive"], busy["device"], busy["device_name"]) == ("busy", True, "cuda:0", "Test GPU")
    assert (busy["pipeline"], busy["stages"]) == ("tiny", ["base", "refiner"])
    assert busy["batches"] == [
        {"id": held.batch_id, "job_id": job_id, "stage": "base", "image_count": 2, "step": 3, "steps": 10}
    ]
    assert (idle["batches"], idle["images_completed"]) == ([], 3)
    assert idle["heartbeat_age_seconds"] >= 0


def test_the_silent_and_the_dismissed_are_not_alive(client: FlaskClient, farm) -> None:
    farm.add_worker("dismissed")
    farm.add_worker("silent")
    farm.add_worker("well")
    farm.add_worker("forgotten")
    dismiss_worker(farm.engine, "dismissed")
    with farm.engine.begin() as connection:
        for name, age in (("silent", "1 minute"), ("forgotten", "2 hours")):
            connection.execute(
                update(Worker).where(Worker.id == name).values(heartbeat_at=Worker.heartbeat_at - _interval(age))
            )
    workers = client.get("/api/v1/workers").get_json()["workers"]
    assert [(worker["id"], worker["alive"]) for worker in workers] == [
        ("well", True),
        ("dismissed", False),
        ("silent", False),
    ]


def _interval(text: str) -> object:
    from sqlalchemy import cast
    from sqlalchemy.dialects.postgresql import INTERVAL

    return cast(text, INTERVAL)


def test_pipelines_with_defaults_and_limits(client: FlaskClient) -> None:
    pipelines = {entry["name"]: entry for entry in client.get("/api/v1/pipelines").get_json()["pipelines"]}
    assert pipelines["tiny"]["default"] is True
    assert pipelines["sdxl-1.0"]["default"] is False
    assert pipelines["sdxl-1.0"]["has_refiner"] is True
    assert pipelines["sdxl-1.0"]["defaults"] == {
        "width": 1024,
        "height": 1024,
        "num_inference_steps": 40,
        "guidance_scale": 5.0,
        "refiner_split": 0.8,
        "guidance_rescale": 0.0,
    }
    turbo = pipelines["sdxl-turbo"]
    assert (turbo["has_refiner"], turbo["max_num_inference_steps"], turbo["max_guidance_scale"]) == (False, 4, 1.0)
    assert turbo["defaults"]["scheduler_options"] == {"timestep_spacing": "trailing"}
    assert pipelines["sdxl-lcm-lora"]["defaults"]["loras"] == [{"name": "lcm-lora-sdxl", "weight": 1.0}]


def test_a_healthy_farm(client: FlaskClient) -> None:
    assert client.get("/healthz").get_json() == {"status": "ok"}
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.get_json() == {"status": "ok", "checks": {"database": "ok", "broker": "ok", "store": "ok"}}


def test_what_does_not_answer_is_named(
    let_in, make_app: Callable[[Settings], Flask], settings: Settings, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    nobody = f"127.0.0.1:{free_port('127.0.0.1')}"
    away = {
        "database": {"database_url": f"postgresql://farm@{nobody}/farm"},
        "broker": {"broker_url": f"redis://{nobody}/0"},
        "store": {"store_url": (blocked / "objects").as_uri()},
    }
    for name, changes in away.items():
        client = let_in(make_app(settings.model_copy(update=changes)))
        assert client.get("/healthz").status_code == 200
        response = client.get("/readyz")
        assert response.status_code == 503
        checks = response.get_json()["checks"]
        assert [part for part, answer in checks.items() if answer != "ok"] == [name]


def test_without_a_database_the_answer_is_to_come_again(
    let_in, make_app: Callable[[Settings], Flask], settings: Settings
) -> None:
    nobody = f"postgresql://farm:secret@127.0.0.1:{free_port('127.0.0.1')}/farm"
    client = let_in(make_app(settings.model_copy(update={"database_url": nobody})))
    response = client.get("/api/v1/jobs")
    assert (response.status_code, response.mimetype) == (503, "application/problem+json")
    assert response.headers["Retry-After"]
    page = client.get("/")
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert "secret" not in response.text + page.text


def test_without_a_broker_jobs_are_still_shown(
    let_in, make_app: Callable[[Settings], Flask], settings: Settings, farm
) -> None:
    job_id = farm.submit()
    farm.start(job_id)
    nobody = f"redis://127.0.0.1:{free_port('127.0.0.1')}/0"
    client = let_in(make_app(settings.model_copy(update={"broker_url": nobody})))
    assert client.get(f"/api/v1/jobs/{job_id}").get_json()["state"] == "running"
    assert client.get("/workers").status_code == 200
