"""The farm as a whole: whether somebody leads it and renders for it, and what has failed."""

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import Engine, func, select, text

from farm.database import LEADER_LOCK
from farm.doctor.findings import Finding, error, ok, warning
from farm.models import Delivery, Job, Worker
from farm.queues import count_queues, served_queues
from farm.states import DeliveryState

CHECK = "farm"
#: What failed longer ago has been seen.
LATELY = timedelta(days=1)
SHOWN = 5


def check_state(engine: Engine, lease_seconds: float) -> Iterator[Finding]:
    """As the database tells it."""
    with engine.connect() as connection:
        # An advisory lock's key stands in pg_locks in two halves.
        leads = connection.scalar(
            text(
                "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                " WHERE locktype = 'advisory' AND classid = 0 AND objid = :key AND objsubid = 1 AND granted"
                " AND datname = current_database()"
            ),
            {"key": LEADER_LOCK},
        )
        alive = connection.scalars(
            select(Worker.device)
            .where(Worker.stopped_at.is_(None), Worker.heartbeat_at > func.now() - timedelta(seconds=lease_seconds))
            .order_by(Worker.device)
        ).all()
        waiting = [count for count in count_queues(connection) if count.waiting]
        served = served_queues(connection, lease_seconds)
        failed = connection.execute(
            select(Job.id, Job.images_failed)
            .where(Job.images_failed > 0, Job.created_at > func.now() - LATELY)
            .order_by(Job.id.desc())
        ).all()
        undelivered = connection.scalar(
            select(func.count()).where(
                Delivery.state == DeliveryState.FAILED, Delivery.attempted_at > func.now() - LATELY
            )
        )
    if leads:
        yield ok(CHECK, "a producer leads")
    else:
        yield error(
            CHECK, "no producer leads: nothing is handed to workers", "Start one: farm producer (farm up has its own)."
        )
    if alive:
        yield ok(CHECK, f"{len(alive)} workers are alive: {', '.join(alive)}")
    else:
        yield warning(CHECK, "no worker is alive", "Start one on each machine that renders: farm worker")
    for count in waiting:
        if (count.pipeline, count.stage) not in served:
            yield warning(
                CHECK,
                f"{count.waiting} batches wait for {count.pipeline}.{count.stage}, which no worker serves",
                f"Start one: farm worker --pipeline {count.pipeline} --stage {count.stage}",
            )
    if failed:
        jobs = ", ".join(str(job) for job, _ in failed[:SHOWN]) + (" ..." if len(failed) > SHOWN else "")
        yield warning(
            CHECK,
            f"{sum(count for _, count in failed)} images of jobs of the last day failed for good (jobs {jobs})",
            f"See why with `farm show {failed[0][0]}`, then `farm retry {failed[0][0]}`.",
        )
    if undelivered:
        yield warning(
            CHECK,
            f"{undelivered} deliveries to webhooks were given up within the last day",
            "The page Webhooks says why, and replays them.",
        )
