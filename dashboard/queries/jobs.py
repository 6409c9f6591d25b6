"""What pages and API show of jobs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.orm import Session

from dashboard.queries.paging import MAX_ID, Page
from farm.database import sought
from farm.errors import NotFoundError
from farm.models import Batch, Image, Job
from farm.progress import Progress, ProgressBoard, of_stage
from farm.spec import is_refined
from farm.states import BatchState, ImageState, JobState, Stage

#: Share of the work that counts as done when the base has ended and the refiner follows by image to image.
HALF = 0.5


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it is shown."""

    job: Job
    now: datetime
    progress: float
    """Share of all denoising that is done, 0 to 1."""

    @property
    def images_cancelled(self) -> int:
        """Images that ended with the job's cancellation."""
        if self.job.state is not JobState.CANCELLED:
            return 0
        return self.job.image_count - self.job.images_completed - self.job.images_failed

    @property
    def images_pending(self) -> int:
        """Images still to come."""
        return self.job.image_count - self.job.images_completed - self.job.images_failed - self.images_cancelled

    @property
    def seconds(self) -> float | None:
        """How long it has been rendering, or took."""
        if self.job.started_at is None:
            return None
        return ((self.job.finished_at or self.now) - self.job.started_at).total_seconds()

    @property
    def images_per_minute(self) -> float | None:
        """Finished images per minute since it started."""
        seconds = self.seconds
        return 60 * self.job.images_completed / seconds if seconds and self.job.images_completed else None

    @property
    def seconds_left(self) -> float | None:
        """Time until it is done if it goes on like this."""
        seconds = self.seconds
        if self.job.finished_at is not None or not seconds or self.progress <= 0:
            return None
        return seconds * (1 - self.progress) / self.progress


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Images of a job that failed for the same reason."""

    message: str
    count: int


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; None is any."""

    state: JobState | None = None
    owner: str | None = None
    pipeline: str | None = None
    words: str | None = None
    """Part of their names."""
    since: datetime | None = None
    """Submitted then or later."""
    until: datetime | None = None
    """Submitted before."""
    finished: bool | None = None


def list_jobs(
    engine: Engine, board: ProgressBoard, limit: int, before: int | None = None, wanted: JobFilter | None = None
) -> Page[JobView]:
    """The newest jobs, newest first; ``before`` goes on where the last page ended."""
    wanted = wanted or JobFilter()
    query = select(Job, func.now()).order_by(Job.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Job.id < min(before, MAX_ID))
    if wanted.state is not None:
        query = query.where(Job.state == wanted.state)
    for column, name in ((Job.owner, wanted.owner), (Job.pipeline, wanted.pipeline)):
        if name is not None:
            query = query.where(column == sought(name))
    if wanted.words is not None:
        query = query.where(Job.name.icontains(sought(wanted.words), autoescape=True))
    if wanted.since is not None:
        query = query.where(Job.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Job.created_at < wanted.until)
    if wanted.finished is not None:
        query = query.where(Job.finished_at.is_not(None) if wanted.finished else Job.finished_at.is_(None))
    return Page.of(_job_views(engine, board, query), limit)


def owners(engine: Engine, limit: int = 100) -> list[str]:
    """Who has submitted jobs, by name."""
    query = select(Job.owner).where(Job.owner != "").distinct().order_by(Job.owner).limit(limit)
    with engine.connect() as connection:
        return list(connection.scalars(query))


def get_job(engine: Engine, board: ProgressBoard, job_id: int) -> JobView:
    """One job; raises NotFoundError."""
    if job_id <= MAX_ID:
        views = _job_views(engine, board, select(Job, func.now()).where(Job.id == job_id))
        if views:
            return views[0]
    raise NotFoundError(f"There is no job {job_id}.")


def jobs_named(engine: Engine, job_ids: Sequence[int]) -> Sequence[Job]:
    """Those of the jobs that are there."""
    with Session(engine, expire_on_commit=False) as session:
        return session.scalars(select(Job).where(Job.id.in_(job_ids)).order_by(Job.id)).all()


def job_errors(engine: Engine, job_id: int) -> list[ErrorGroup]:
    """Why images of a job failed, the most frequent reason first."""
    query = (
        select(Image.error, func.count())
        .where(Image.job_id == job_id, Image.state == ImageState.FAILED)
        .group_by(Image.error)
        .order_by(func.count().desc())
        .limit(20)
    )
    with engine.connect() as connection:
        return [ErrorGroup(message or "", count) for message, count in connection.execute(query)]


def _job_views(engine: Engine, board: ProgressBoard, query: Select[Job, datetime]) -> list[JobView]:
    with Session(engine, expire_on_commit=False) as session:
        rows = session.execute(query).all()
        unfinished = [job.id for job, _ in rows if job.finished_at is None]
        active: dict[int, list[Any]] = defaultdict(list)
        if unfinished:
            batches = session.execute(
                select(
                    Batch.job_id, Batch.id, Batch.stage, Batch.parameters, func.count(Image.index).label("image_count")
                )
                .join(Image, Image.batch_id == Batch.id)
                .where(Batch.job_id.in_(unfinished), Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING)))
                .group_by(Batch.id)
            )
            for batch in batches:
                active[batch.job_id].append(batch)
    progress = board.read([batch.id for batches in active.values() for batch in batches])
    return [JobView(job, now, share_done(job, active[job.id], progress)) for job, now in rows]


def share_done(job: Job, active: Sequence[Any], progress: Mapping[int, Progress]) -> float:
    """Share of a job's denoising that is done, 0 to 1.

    ``active`` are its batches on their way, with id, stage, parameters and image_count.
    """
    started = 0.0
    for batch in active:
        split = batch.parameters.get("refiner_split") or (HALF if is_refined(batch.parameters) else 1.0)
        begin, share = (0.0, split) if batch.stage is Stage.BASE else (split, 1 - split)
        known = of_stage(progress.get(batch.id), batch.stage)
        started += batch.image_count * (begin + (share * known.step / known.steps if known else 0.0))
    return min(1.0, (job.images_completed + job.images_failed + started) / job.image_count)
