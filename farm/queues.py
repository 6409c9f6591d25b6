"""How much waits for which workers, counted in Postgres: the broker only holds what is about to begin."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, case, func, or_, select
from sqlalchemy.orm import aliased

from farm.models import Batch, Job, Worker
from farm.states import BatchState, JobState, Stage


@dataclass(frozen=True, slots=True)
class QueueCount:
    """Batches of one pipeline's stage."""

    pipeline: str
    stage: Stage
    waiting: int
    """Those that could begin: what a paused job or a test run holds back is not waiting for a worker."""
    running: int
    oldest_seconds: float
    """Age of the one that waits longest, 0 when none waits."""


def waits_for_no_job() -> ColumnElement[bool]:
    """Whether a job may begin as far as the job matters that it comes after."""
    earlier = aliased(Job)
    unfinished = select(earlier.id).where(earlier.id == Job.after_job_id, earlier.finished_at.is_(None))
    return or_(Job.after_job_id.is_(None), ~unfinished.correlate(Job).exists())


def count_queues(connection: Connection) -> list[QueueCount]:
    """All queues that have work."""
    # A refiner's turn comes when its base is committed, which queues it; any other when it was made or last failed.
    since = case((Batch.stage == Stage.REFINER, func.coalesce(Batch.queued_at, Batch.run_after)), else_=Batch.run_after)
    is_running = Batch.state == BatchState.RUNNING
    rows = connection.execute(
        select(
            Job.pipeline,
            Batch.stage,
            func.count().filter(~is_running),
            func.count().filter(is_running),
            func.extract("epoch", func.now() - func.min(since).filter(~is_running)),
        )
        .join(Job, Job.id == Batch.job_id)
        .where(
            Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
            Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING))
            | ((Batch.state == BatchState.READY) & ~Batch.held & Job.paused_at.is_(None) & waits_for_no_job()),
        )
        .group_by(Job.pipeline, Batch.stage)
    ).all()
    return [
        QueueCount(pipeline, stage, waiting, running, max(0.0, float(oldest or 0)))
        for pipeline, stage, waiting, running, oldest in rows
    ]


def served_queues(connection: Connection, lease_seconds: float) -> set[tuple[str, Stage]]:
    """The queues that live workers serve, drained ones included."""
    rows = connection.execute(
        select(Worker.pipeline, Worker.stages).where(
            Worker.stopped_at.is_(None), Worker.heartbeat_at > func.now() - timedelta(seconds=lease_seconds)
        )
    )
    return {(pipeline, Stage(stage)) for pipeline, stages in rows for stage in stages}
