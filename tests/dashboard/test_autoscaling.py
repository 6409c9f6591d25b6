"""What an autoscaler is told of a farm in each state."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, insert

from farm.claims import claim
from farm.control import pause_job
from farm.models import RenderMinute
from farm.states import Stage
from farm.transitions import finish_base

#: Megapixel-steps of an image of 256x256 in 10 steps.
IMAGE = 256 * 256 / 1e6 * 10


def ask(client: FlaskClient, **query: Any) -> dict[str, Any]:
    answer = client.get("/api/v1/autoscaling", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def measure(engine: Engine, seconds_per_image: dict[Stage, float]) -> None:
    with engine.begin() as connection:
        for stage, seconds in seconds_per_image.items():
            connection.execute(
                insert(RenderMinute).values(
                    minute=datetime.now(UTC),
                    worker_id="w",
                    pipeline="tiny",
                    stage=stage,
                    seconds=seconds,
                    images=1,
                    pictures=0,
                    failures=0,
                    megapixel_steps=IMAGE,
                )
            )


def submit(farm, images: int, **fields: Any) -> int:
    return farm.submit(images, **{"size": "256x256", "steps": 10, **fields})


def test_no_work_takes_no_device(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker()
    assert ask(client) == {
        "pipeline": "tiny",
        "stage": "both",
        "devices": 0,
        "workers": 1,
        "batches": 0,
        "waiting_seconds": 0,
        "target_seconds": 600,
    }
    pause_job(engine, submit(farm, 5))
    assert ask(client)["devices"] == 0


def test_unmeasured_work_takes_one_device_to_measure_it(client: FlaskClient, farm) -> None:
    submit(farm, 50)
    found = ask(client, stage="base")
    assert (found["devices"], found["batches"], found["waiting_seconds"], found["workers"]) == (1, 50, None, 0)
    # The refiner has nothing to do.
    assert ask(client, stage="refiner")["devices"] == 0


def test_as_many_devices_as_do_the_work_in_the_time(client: FlaskClient, farm, engine: Engine) -> None:
    measure(engine, {Stage.BASE: 60.0})
    submit(farm, 50)
    found = ask(client, stage="base")
    assert found["waiting_seconds"] == pytest.approx(3_000)
    assert found["devices"] == 5
    assert ask(client, stage="base", seconds=1_000)["devices"] == 3
    # Fifty batches are never on more than fifty devices.
    assert ask(client, stage="base", seconds=1)["devices"] == 50
    # Another pipeline's work is another's.
    assert ask(client, pipeline="sdxl-1.0")["devices"] == 0


def test_the_last_batch_keeps_its_device_until_it_is_done(client: FlaskClient, farm, engine: Engine) -> None:
    measure(engine, {Stage.BASE: 60.0, Stage.REFINER: 30.0})
    job_id = submit(farm, 1, refiner_split=0.5)
    held = farm.start(job_id)
    assert ask(client, stage="base")["devices"] == 1
    assert ask(client, stage="refiner")["devices"] == 0
    assert finish_base(engine, held.batch_id, held.attempt, "l", "00", 1.0)
    assert ask(client, stage="base")["devices"] == 0
    assert ask(client, stage="refiner")["devices"] == 1
    assert ask(client, stage="both")["devices"] == 1
    refining = claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", 30)
    assert refining is not None
    assert ask(client, stage="refiner")["devices"] == 1
    farm.finish(refining)
    assert ask(client, stage="both")["devices"] == 0


def test_workers_of_both_stages_do_the_work_of_both(client: FlaskClient, farm, engine: Engine) -> None:
    measure(engine, {Stage.BASE: 100.0, Stage.REFINER: 200.0})
    submit(farm, 30, refiner_split=0.5)
    # Half of the steps each: 50 + 100 seconds an image.
    assert ask(client, stage="both")["waiting_seconds"] == pytest.approx(4_500)
    assert ask(client, stage="both")["devices"] == 8


def test_what_is_asked_for_must_exist(client: FlaskClient) -> None:
    assert client.get("/api/v1/autoscaling?pipeline=unknown").status_code == 404
    for query in ("stage=decoder", "seconds=0", "seconds=soon"):
        assert client.get(f"/api/v1/autoscaling?{query}").status_code == 422, query


def test_what_is_due_earlier_takes_more_devices(client: FlaskClient, farm, engine: Engine) -> None:
    measure(engine, {Stage.BASE: 30})
    submit(farm, 80, batch_size=1, refiner_split=None)
    assert ask(client)["devices"] == 4, "2,400 seconds of work in 600"
    soon = (datetime.now(UTC) + timedelta(seconds=300)).isoformat()
    submit(farm, 80, batch_size=1, refiner_split=None, deadline=soon)
    assert ask(client)["devices"] == 9, "that of the one in 300 seconds, and a little more by now"
    far = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    submit(farm, 80, batch_size=1, refiner_split=None, deadline=far)
    assert ask(client)["devices"] == 12, "nothing takes longer than the target"
