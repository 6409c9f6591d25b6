"""What the page of one job shows while it is rendered: its stages, its devices, its failures by cause."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, select, true
from sqlalchemy.orm import Session

from dashboard.queries.jobs import JobView, share_done
from dashboard.queries.paging import MAX_ID
from farm.causes import Cause, cause_of
from farm.errors import NotFoundError
from farm.models import Batch, Image, Job, Worker
from farm.progress import Progress, ProgressBoard, of_stage
from farm.spec import is_refined
from farm.states import BatchState, ImageState, Stage

#: The rate that is shown looks back so far: long enough to be calm, short enough to notice a change.
RATE_SECONDS = 120
#: Failures are grouped among so many, from the first: their causes are few, and counting millions takes time.
MAX_FAILURES_READ = 10_000


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far one stage of a job is, in images."""

    stage: Stage
    done: int
    running: int
    total: int

    @property
    def share(self) -> float:
        """Share that is done, 0 to 1."""
        return self.done / self.total


@dataclass(frozen=True, slots=True)
class Rendering:
    """A batch of the job that a device renders at this moment."""

    batch_id: int
    stage: Stage
    device: str
    hostname: str
    first_index: int
    image_count: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Failures:
    """Images of a job that failed for the same cause."""

    cause: Cause
    count: int
    example: str
    first_index: int
    workers: tuple[str, ...]
    """Where they failed, if those are few enough to tell something."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A job as its page shows it."""

    view: JobView
    stages: tuple[StageProgress, ...]
    renderings: tuple[Rendering, ...]
    failures: tuple[Failures, ...]
    failures_complete: bool
    """Whether all failures were read."""
    recent_rate: float | None
    """Images per minute of late; None when none ended."""

    @property
    def buttons(self) -> str:
        """Changes when other buttons fit the job."""
        job = self.view.job
        return f"{job.finished_at is not None} {job.paused_at is not None} {job.test_images} {job.images_failed}"

    @property
    def seconds_left(self) -> float | None:
        """Time until it is done, at the rate of late; unknown while it is paused or nothing ends."""
        if self.view.job.paused_at is not None or self.view.job.finished_at is not None:
            return None
        if not self.recent_rate:
            return self.view.seconds_left
        remaining = (1 - self.view.progress) * self.view.job.image_count
        return 60 * remaining / self.recent_rate


def watch_job(engine: Engine, board: ProgressBoard, job_id: int) -> Watched:
    """One job with all that changes while it is rendered; raises NotFoundError."""
    if job_id > MAX_ID:
        raise NotFoundError(f"There is no job {job_id}.")
    with Session(engine, expire_on_commit=False) as session:
        recent = (
            select(func.count(), func.min(Image.finished_at))
            .where(
                Image.job_id == job_id,
                Image.finished_at > func.now() - timedelta(seconds=RATE_SECONDS),
                Image.state == ImageState.COMPLETED,
            )
            .subquery()
        )
        parameters = select(Batch.parameters).where(Batch.job_id == job_id).limit(1).scalar_subquery()
        query = select(Job, func.now(), parameters, *recent.c).join(recent, true()).where(Job.id == job_id)
        row = session.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no job {job_id}.")
        job, now, first_parameters, recent_count, recent_since = row
        active = _active(session, job_id) if job.finished_at is None else []
        failures = _failed(session, job_id) if job.images_failed else []
    progress = board.read([batch.id for batch in active])
    refined = first_parameters is not None and is_refined(first_parameters)
    view = JobView(job, now, share_done(job, active, progress))
    return Watched(
        view=view,
        stages=_stages(job, active, refined=refined),
        renderings=tuple(
            Rendering(
                batch.id,
                batch.stage,
                batch.device or batch.worker_id or "",
                batch.hostname or "",
                batch.first_index,
                batch.image_count,
                of_stage(progress.get(batch.id), batch.stage),
            )
            for batch in active
            if batch.state is BatchState.RUNNING
        ),
        failures=_by_cause(failures),
        failures_complete=len(failures) < MAX_FAILURES_READ,
        recent_rate=_rate(job, now, recent_count, recent_since) if job.finished_at is None else view.images_per_minute,
    )


def _active(session: Session, job_id: int) -> Sequence[Any]:
    """Batches on their way, and those that wait for their refiner."""
    return session.execute(
        select(
            Batch.id,
            Batch.job_id,
            Batch.state,
            Batch.stage,
            Batch.parameters,
            Batch.worker_id,
            Worker.device,
            Worker.hostname,
            func.min(Image.index).label("first_index"),
            func.count(Image.index).label("image_count"),
        )
        .join(Image, Image.batch_id == Batch.id)
        .outerjoin(Worker, Worker.id == Batch.worker_id)
        .where(Batch.job_id == job_id, Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING)))
        .group_by(Batch.id, Worker.id)
        .order_by(Batch.id)
    ).all()


def _stages(job: Job, active: Sequence[Any], *, refined: bool) -> tuple[StageProgress, ...]:
    counts: dict[tuple[Stage, bool], int] = defaultdict(int)
    for batch in active:
        counts[batch.stage, batch.state is BatchState.RUNNING] += batch.image_count
    ended = job.images_completed + job.images_failed
    if not refined:
        return (StageProgress(Stage.BASE, ended, counts[Stage.BASE, True], job.image_count),)
    handed_over = counts[Stage.REFINER, True] + counts[Stage.REFINER, False]
    return (
        StageProgress(Stage.BASE, min(ended + handed_over, job.image_count), counts[Stage.BASE, True], job.image_count),
        StageProgress(Stage.REFINER, ended, counts[Stage.REFINER, True], job.image_count),
    )


def _failed(session: Session, job_id: int) -> Sequence[Any]:
    first = (
        select(Image.error, Image.index, Image.batch_id)
        .where(Image.job_id == job_id, Image.state == ImageState.FAILED)
        .order_by(Image.index)
        .limit(MAX_FAILURES_READ)
        .subquery()
    )
    return session.execute(
        select(first.c.error, first.c.index, Batch.worker_id)
        .join(Batch, Batch.id == first.c.batch_id)
        .order_by(first.c.index)
    ).all()


def _by_cause(failed: Sequence[Any]) -> tuple[Failures, ...]:
    """The most frequent first."""
    groups: dict[Cause, list[Any]] = defaultdict(list)
    for image in failed:
        groups[cause_of(image.error)].append(image)
    found = []
    for cause, images in groups.items():
        workers = {image.worker_id for image in images if image.worker_id}
        told = tuple(sorted(workers)) if len(workers) <= 2 else ()
        found.append(Failures(cause, len(images), images[0].error, images[0].index, told))
    return tuple(sorted(found, key=lambda group: (-group.count, group.first_index)))


def _rate(job: Job, now: datetime, count: int, since: datetime | None) -> float | None:
    if not count or job.started_at is None or since is None:
        return None
    # A job that began within that time had less of it.
    seconds = min(RATE_SECONDS, (now - job.started_at).total_seconds())
    return 60 * count / seconds if seconds > 0 else None
