"""How long a job takes, from numbers, and from what the farm measured."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, insert, update

from farm.batch_sizes import BatchSizes
from farm.catalog import Catalog
from farm.control import pause_job
from farm.models import RenderMinute, Worker
from farm.states import Stage
from farm.transitions import register_worker
from producer.batching import batches_of
from producer.estimate import Throughput, estimate, work_of
from producer.expand import plan_job
from producer.intake import Intake, Row
from producer.submit import submit_job
from producer.throughput import throughput

BASE, REFINER = Stage.BASE, Stage.REFINER
BOTH = frozenset(Stage)
NOTHING = {BASE: 0.0, REFINER: 0.0}


def test_work_is_counted_in_megapixel_steps() -> None:
    fields = {"size": "512x256", "steps": 10, "refiner_split": 0.8, "images_per_prompt": 3}
    plan = plan_job(Catalog.load(), "tiny", fields, Intake([Row({"prompt": "a"})]), lambda refs: {})
    work = work_of(batches_of(plan, BatchSizes(8)))
    assert work[BASE] == pytest.approx(3 * 8 * 512 * 256 / 1e6)
    assert work[REFINER] == pytest.approx(3 * 2 * 512 * 256 / 1e6)


@pytest.mark.parametrize(
    ("workers", "until"),
    [
        ({BOTH: 1}, 120),
        ({BOTH: 4}, 30),
        ({frozenset({BASE}): 1, frozenset({REFINER}): 1}, 80),
        ({frozenset({BASE}): 4, frozenset({REFINER}): 1}, 40),
        # Of three workers two may take the base's 80 seconds: all together need 120 / 3.
        ({frozenset({BASE}): 1, BOTH: 2}, 40),
        ({frozenset({BASE}): 3}, None),
        ({}, None),
    ],
)
def test_stages_are_spread_over_the_workers_that_serve_them(workers: dict, until: float | None) -> None:
    known = Throughput({BASE: 2.0, REFINER: 4.0}, NOTHING, workers)
    found = estimate({BASE: 40.0, REFINER: 10.0}, known)
    assert found.device_seconds == 120
    assert found.seconds_until_done == until


def test_what_waits_already_comes_first() -> None:
    known = Throughput({BASE: 1.0, REFINER: 1.0}, {BASE: 50.0, REFINER: 50.0}, {BOTH: 1})
    found = estimate({BASE: 10.0, REFINER: 0.0}, known)
    assert (found.device_seconds, found.seconds_until_done) == (10, 110)


def test_without_a_measurement_nothing_is_claimed() -> None:
    assert estimate({BASE: 1.0, REFINER: 1.0}, Throughput({BASE: 1.0}, NOTHING, {BOTH: 1})).device_seconds is None
    # The base alone needs no refiner's.
    assert estimate({BASE: 1.0, REFINER: 0.0}, Throughput({BASE: 1.0}, NOTHING, {BOTH: 1})).device_seconds == 1


def test_what_the_farm_knows(engine: Engine) -> None:
    minute = {"minute": datetime.now(UTC), "worker_id": "w", "pipeline": "tiny"}
    old = minute | {"minute": datetime(2020, 1, 1, tzinfo=UTC)}
    with engine.begin() as connection:
        connection.execute(
            insert(RenderMinute),
            [
                minute | {"stage": BASE, "seconds": 30.0, "megapixel_steps": 10.0},
                minute | {"worker_id": "v", "stage": BASE, "seconds": 10.0, "megapixel_steps": 10.0},
                minute | {"pipeline": "other", "stage": BASE, "seconds": 99.0, "megapixel_steps": 1.0},
                old | {"stage": REFINER, "seconds": 5.0, "megapixel_steps": 1.0},
            ],
        )
    for name, pipeline in (("w", "tiny"), ("v", "tiny"), ("drained", "tiny"), ("u", "other")):
        register_worker(
            engine,
            Worker(
                id=name,
                hostname="h",
                process_id=1,
                device="cpu",
                device_name="CPU",
                pipeline=pipeline,
                stages=["base", "refiner"],
            ),
        )
    with engine.begin() as connection:
        connection.execute(update(Worker).where(Worker.id == "drained").values(draining_at=datetime.now(UTC)))

    def submit(count: int, **fields: object) -> int:
        rows = Intake([Row({"prompt": "a"})] * count)
        whole = {"size": "256x256", "steps": 10, "refiner_split": "none", "seed": 1, **fields}
        return submit_job(engine, Catalog.load(), "tiny", whole, rows).job_id

    one = 256 * 256 / 1e6 * 10
    submit(30)
    # Of a test run only the test waits, of a paused job nothing.
    submit(30, test_run=4)
    pause_job(engine, submit(30))
    known = throughput(engine, "tiny", lease_seconds=30)
    assert known.seconds_per_unit == {BASE: 2.0}
    assert known.workers == {BOTH: 2}
    assert known.waiting[BASE] == pytest.approx(34 * one)
    assert known.waiting[REFINER] == 0
