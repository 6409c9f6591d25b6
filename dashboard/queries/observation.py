"""The farm in numbers, for monitoring: everything is read from Postgres, so that any dashboard gives the same answer.

Nothing here looks at rows that have ended, but for jobs, which carry the counts of their images: a farm may hold
millions of images.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, literal_column, select, text, union_all
from sqlalchemy.orm import Session

from farm.database import LEADER_LOCK
from farm.minutes import COUNTS, totals_until
from farm.models import Batch, DoomedObject, Job, RenderMinute, RenderTotal, Worker
from farm.queues import QueueCount, count_queues
from farm.states import BatchState, ImageState, JobState, Stage

#: A worker that died without a goodbye is looked for so long.
MISSED = timedelta(hours=1)
WORKER_STATES = ("idle", "rendering", "draining", "drained", "resting", "lost")

Queue = tuple[str, Stage]


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker that lives, or that should."""

    worker: Worker
    state: str
    heartbeat_age_seconds: float


@dataclass(frozen=True, slots=True)
class Observation:
    """The farm at one moment."""

    queues: Mapping[Queue, QueueCount]
    """All that have work or a live worker."""
    batches: Mapping[tuple[Queue, BatchState], int]
    """Those that have not ended."""
    jobs: Mapping[JobState, int]
    images: Mapping[ImageState, int]
    workers: Sequence[SeenWorker]
    totals: Mapping[Queue, Mapping[str, float]]
    """What each queue's workers ever did, by the names of ``farm.minutes.COUNTS``."""
    leaders: int
    doomed_objects: int
    database_bytes: int


def observe(engine: Engine, lease_seconds: float) -> Observation:
    """Look at everything, in nine queries."""
    with engine.connect() as connection:
        workers = _workers(connection, lease_seconds)
        served = {
            (seen.worker.pipeline, Stage(stage))
            for seen in workers
            if seen.state != "lost"
            for stage in seen.worker.stages
        }
        queues = {(pipeline, stage): QueueCount(pipeline, stage, 0, 0, 0.0) for pipeline, stage in sorted(served)}
        queues |= {(queue.pipeline, queue.stage): queue for queue in count_queues(connection)}
        jobs, images = _jobs(connection)
        return Observation(
            queues=queues,
            batches=_batches(connection),
            jobs=jobs,
            images=images,
            workers=workers,
            totals=_totals(connection),
            leaders=_leaders(connection),
            doomed_objects=connection.scalar(select(func.count()).select_from(DoomedObject)) or 0,
            database_bytes=connection.scalar(select(func.pg_database_size(func.current_database()))) or 0,
        )


def _workers(connection: Connection, lease_seconds: float) -> list[SeenWorker]:
    busy = select(Batch.id).where(Batch.state == BatchState.RUNNING, Batch.worker_id == Worker.id).exists()
    with Session(connection, expire_on_commit=False) as session:
        rows = session.execute(
            select(Worker, busy, func.now())
            .where(Worker.stopped_at.is_(None), Worker.heartbeat_at > func.now() - MISSED)
            .order_by(Worker.id)
        ).all()
    return [_seen(worker, is_busy, now, lease_seconds) for worker, is_busy, now in rows]


def _seen(worker: Worker, is_busy: bool, now: datetime, lease_seconds: float) -> SeenWorker:
    age = max(0.0, (now - worker.heartbeat_at).total_seconds())
    if age > lease_seconds:
        state = "lost"
    elif worker.draining_at is not None:
        state = "draining" if is_busy else "drained"
    else:
        state = "rendering" if is_busy else "resting" if worker.resting else "idle"
    return SeenWorker(worker, state, age)


def _batches(connection: Connection) -> dict[tuple[Queue, BatchState], int]:
    # As the partial indexes have it: batches that have ended are never looked at.
    waits = (Batch.state == BatchState.READY) & ~Batch.held
    on_its_way = Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING))
    rows = connection.execute(
        select(Job.pipeline, Batch.stage, Batch.state, func.count())
        .join(Job, Job.id == Batch.job_id)
        .where(waits | on_its_way)
        .group_by(Job.pipeline, Batch.stage, Batch.state)
    )
    return {((pipeline, stage), state): count for pipeline, stage, state, count in rows}


def _jobs(connection: Connection) -> tuple[dict[JobState, int], dict[ImageState, int]]:
    """Jobs by state, and their images, whose ends are rolled up in them."""
    rows = connection.execute(
        select(
            Job.state,
            func.count(),
            func.sum(Job.image_count),
            func.sum(Job.images_completed),
            func.sum(Job.images_failed),
        ).group_by(Job.state)
    )
    jobs: Counter[JobState] = Counter()
    images: Counter[ImageState] = Counter()
    for state, count, all_images, completed, failed in rows:
        jobs[state] = count
        images[ImageState.COMPLETED] += completed
        images[ImageState.FAILED] += failed
        left = ImageState.CANCELLED if state is JobState.CANCELLED else ImageState.PENDING
        images[left] += all_images - completed - failed
    return {state: jobs[state] for state in JobState}, {state: images[state] for state in ImageState}


def _totals(connection: Connection) -> dict[Queue, dict[str, float]]:
    """What was added up, and what came since: together they only grow."""

    def counts(table: Any) -> list[Any]:
        return [table.pipeline, table.stage, *(getattr(table, name) for name in COUNTS)]

    # In one statement: between two, minutes may become totals.
    both = union_all(
        select(*counts(RenderTotal)),
        select(*counts(RenderMinute)).where(RenderMinute.minute >= totals_until()),
    ).subquery()
    rows = connection.execute(
        select(both.c.pipeline, both.c.stage, *(func.sum(both.c[name]) for name in COUNTS)).group_by(
            both.c.pipeline, both.c.stage
        )
    )
    return {
        (pipeline, stage): dict(zip(COUNTS, map(float, numbers), strict=True)) for pipeline, stage, *numbers in rows
    }


def _leaders(connection: Connection) -> int:
    """How many producers lead: 1, or 0 while none is there."""
    database: Select[tuple[int]] = (
        select(literal_column("oid"))
        .select_from(text("pg_database"))
        .where(literal_column("datname") == func.current_database())
    )
    held = (
        select(func.count())
        .select_from(text("pg_locks"))
        .where(
            literal_column("locktype") == "advisory",
            literal_column("database") == database.scalar_subquery(),
            # A key of 64 bits is shown in two halves.
            literal_column("classid") == LEADER_LOCK >> 32,
            literal_column("objid") == LEADER_LOCK & 0xFFFFFFFF,
            literal_column("granted"),
        )
    )
    return connection.scalar(held) or 0
