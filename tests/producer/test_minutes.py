"""The leader writes down how much waits, and forgets what nobody can look at any more."""

from datetime import UTC, datetime, timedelta

from rows import LEASE, start, submit
from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.orm import Session

from farm.control import pause_job
from farm.models import Batch, QueueMinute, RenderMinute, Worker
from farm.states import Stage
from farm.transitions import finish_base, queue_ready_batches, register_worker
from producer.minutes import forget_old_minutes, record_queues


def minutes(engine: Engine) -> dict[tuple[str, Stage], QueueMinute]:
    with Session(engine, expire_on_commit=False) as session:
        return {(row.pipeline, row.stage): row for row in session.scalars(select(QueueMinute))}


def test_what_waits_and_what_runs_is_counted_by_queue(engine: Engine) -> None:
    job_id = submit(engine, 10, batch_size=2)
    held = start(engine, job_id)
    assert finish_base(engine, held.batch_id, held.attempt, "latents", "00", 1.0)
    start(engine, job_id)
    queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    with engine.begin() as connection:
        connection.execute(
            update(Batch).where(Batch.stage == Stage.BASE).values(run_after=func.now() - timedelta(hours=1))
        )
    assert record_queues(engine, LEASE) == 2
    found = minutes(engine)
    base, refiner = found["tiny", Stage.BASE], found["tiny", Stage.REFINER]
    assert (base.waiting, base.running) == (3, 1)
    assert 3600 <= base.oldest_seconds < 3700
    assert (refiner.waiting, refiner.running) == (1, 0)
    assert refiner.oldest_seconds < 60


def test_what_may_not_begin_does_not_wait(engine: Engine) -> None:
    paused, testing = submit(engine, 4, batch_size=1), submit(engine, 4, batch_size=1, first=1)
    pause_job(engine, paused)
    with engine.begin() as connection:
        connection.execute(
            update(Batch)
            .where(
                Batch.job_id == testing,
                Batch.id
                > func.coalesce(select(func.min(Batch.id)).where(Batch.job_id == testing).scalar_subquery(), 0),
            )
            .values(held=True)
        )
    record_queues(engine, LEASE)
    assert minutes(engine)["tiny", Stage.BASE].waiting == 1


def test_an_idle_worker_makes_a_row_and_a_minute_is_written_once(engine: Engine) -> None:
    register_worker(
        engine,
        Worker(
            id="w", hostname="h", process_id=1, device="cpu", device_name="CPU", pipeline="tiny", stages=["refiner"]
        ),
    )
    assert record_queues(engine, LEASE) == 1
    submit(engine, 1)
    record_queues(engine, LEASE)
    found = minutes(engine)
    assert found["tiny", Stage.REFINER].waiting == 0
    assert found["tiny", Stage.BASE].waiting == 1


def test_old_minutes_are_forgotten(engine: Engine) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    with engine.begin() as connection:
        for days in (7, 9):
            minute = now - timedelta(days=days)
            connection.execute(
                insert(RenderMinute).values(minute=minute, worker_id="w", pipeline="tiny", stage=Stage.BASE)
            )
            connection.execute(
                insert(QueueMinute).values(
                    minute=minute, pipeline="tiny", stage=Stage.BASE, waiting=1, running=0, oldest_seconds=1
                )
            )
    assert forget_old_minutes(engine) == 2
    with Session(engine) as session:
        assert session.scalars(select(RenderMinute.minute)).one() == now - timedelta(days=7)
        assert session.scalars(select(QueueMinute.minute)).one() == now - timedelta(days=7)
