"""Decides which batch goes next: keeps each Celery queue a few batches deep per live worker, and shares it fairly.

A short queue is what makes priorities and cancellation take effect at once: everything else waits in Postgres,
where it can still be reordered. The interactive class has places of its own, which bulk cannot fill.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import Connection, Engine, func, lateral, select, true

from farm.broker import ring
from farm.models import Batch, Job, Worker
from farm.settings import Settings
from farm.spec import INTERACTIVE_PRIORITY
from farm.states import BatchState, JobState, Stage
from farm.transitions import queue_ready_batches

logger = logging.getLogger(__name__)

#: Base stops running ahead when so many batches per refiner worker wait for their refiner: latents cost space.
REFINER_BACKLOG = 8


@dataclass(frozen=True, slots=True)
class JobLoad:
    """What fairness needs to know of a job that has batches ready."""

    job_id: int
    owner: str
    priority: int
    ready: int
    """Batches that could go now (counted up to the free places)."""
    active: int
    """Batches queued or running."""


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What waits of one class for a pipeline's stage, and the live workers that serve it and are not drained."""

    pipeline: str
    stage: Stage
    interactive: bool
    workers: int
    queued: int


def fair_shares(jobs: Iterable[JobLoad], places: int) -> dict[int, int]:
    """How many of the free places each job gets.

    Always the highest priority first; within it the owner with the fewest batches on their way, then that owner's
    job with the fewest, then the oldest.
    """
    jobs = list(jobs)
    owner_active: Counter[str] = Counter()
    for job in jobs:
        owner_active[job.owner] += job.active
    shares: Counter[int] = Counter()

    def rank(job: JobLoad) -> tuple[int, int, int, int]:
        return (-job.priority, owner_active[job.owner], job.active + shares[job.job_id], job.job_id)

    heap = [(rank(job), job) for job in jobs if job.ready > 0]
    heapq.heapify(heap)
    while heap and sum(shares.values()) < places:
        known_rank, job = heapq.heappop(heap)
        if known_rank != rank(job):
            # Another job of the same owner was served since.
            heapq.heappush(heap, (rank(job), job))
            continue
        shares[job.job_id] += 1
        owner_active[job.owner] += 1
        if shares[job.job_id] < job.ready:
            heapq.heappush(heap, (rank(job), job))
    return dict(shares)


def dispatch(engine: Engine, celery: Celery, settings: Settings) -> int:
    """Fill the queues up, and ring for what was queued. Returns how many batches were sent."""
    sent = 0
    # What is read needs no transaction, and each costs as much as the query in it.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        queues = _queue_loads(connection, settings.lease_seconds)
        # What is interactive is sent before the rest is even looked for.
        for queue in sorted(queues, key=lambda queue: not queue.interactive):
            places = free_places(queue, queues, settings.queue_depth)
            if places == 0:
                continue
            for job_id, count in fair_shares(_job_loads(connection, queue, places), places).items():
                sent += _send(engine, celery, queue, job_id, count)
    return sent


def free_places(queue: QueueLoad, queues: Sequence[QueueLoad], depth: int) -> int:
    """How many more batches ``queue`` may hold."""
    if queue.stage is Stage.BASE:
        following = (queue.pipeline, Stage.REFINER, queue.interactive)
        refiner = next((q for q in queues if (q.pipeline, q.stage, q.interactive) == following), None)
        if refiner is not None and refiner.queued >= REFINER_BACKLOG * max(refiner.workers, 1):
            return 0
    return max(0, depth * queue.workers - queue.queued)


def _send(engine: Engine, celery: Celery, queue: QueueLoad, job_id: int, count: int) -> int:
    """Queue a job's next batches, and ring for them. Returns for how many."""
    sent = 0
    for batch in queue_ready_batches(engine, job_id, queue.stage, count):
        try:
            ring(
                celery,
                batch.pipeline,
                batch.stage,
                batch.batch_id,
                batch.attempt,
                refined=batch.refined,
                interactive=queue.interactive,
            )
        except OperationalError as error:
            logger.warning("broker away, batch %d waits to be sent again: %s", batch.batch_id, error)
        else:
            sent += 1
    return sent


def _queue_loads(connection: Connection, lease_seconds: float) -> list[QueueLoad]:
    alive = select(Worker.pipeline, Worker.stages).where(
        Worker.stopped_at.is_(None),
        Worker.draining_at.is_(None),
        Worker.heartbeat_at > func.now() - timedelta(seconds=lease_seconds),
    )
    workers: Counter[tuple[str, Stage]] = Counter()
    for row in connection.execute(alive):
        workers.update((row.pipeline, Stage(stage)) for stage in row.stages)
    interactive = (Job.priority >= INTERACTIVE_PRIORITY).label("interactive")
    queued = connection.execute(
        select(Job.pipeline, Batch.stage, interactive, func.count())
        .join(Job, Job.id == Batch.job_id)
        .where(Batch.state == BatchState.QUEUED)
        .group_by(Job.pipeline, Batch.stage, interactive)
    )
    waiting = {(pipeline, stage, is_interactive): count for pipeline, stage, is_interactive, count in queued}
    served = workers.keys() | {(pipeline, stage) for pipeline, stage, _ in waiting}
    return [
        QueueLoad(
            pipeline=pipeline,
            stage=stage,
            interactive=is_interactive,
            workers=workers[pipeline, stage],
            queued=waiting.get((pipeline, stage, is_interactive), 0),
        )
        for pipeline, stage in sorted(served)
        for is_interactive in (True, False)
    ]


def _job_loads(connection: Connection, queue: QueueLoad, places: int) -> list[JobLoad]:
    ready = lateral(
        select(Batch.id)
        .where(
            Batch.job_id == Job.id,
            Batch.state == BatchState.READY,
            ~Batch.held,
            Batch.stage == queue.stage,
            Batch.run_after <= func.now(),
        )
        .limit(places)
    )
    active = (
        select(func.count())
        .where(Batch.job_id == Job.id, Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING)))
        .scalar_subquery()
    )
    rows = connection.execute(
        select(Job.id, Job.owner, Job.priority, func.count(ready.c.id).label("ready"), active.label("active"))
        .join(ready, onclause=true())
        .where(
            Job.pipeline == queue.pipeline,
            (Job.priority >= INTERACTIVE_PRIORITY) == queue.interactive,
            Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
            Job.paused_at.is_(None),
        )
        .group_by(Job.id)
    )
    return [JobLoad(row.id, row.owner, row.priority, row.ready, row.active) for row in rows]
