"""The read side: what pages and API show, each in a fixed number of queries; lists are paged by key, not offset."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine, Select, func, select, true
from sqlalchemy.orm import Session

from farm.errors import NotFoundError
from farm.formats import Format, format_of
from farm.keys import download_name
from farm.models import Batch, Image, Job, Worker
from farm.progress import Progress, ProgressBoard
from farm.spec import ImageParameters, is_refined
from farm.states import BatchState, ImageState, JobState, Stage

#: Largest number of a row that Postgres can hold; beyond it there is nothing to find.
MAX_ID = 2**63 - 1
MAX_INDEX = 2**31 - 1
#: A row shows the time at which its transaction began, and becomes visible when it commits: who asks for what is
#: new looks back this far, and may see a row twice.
COMMIT_SECONDS = 5


Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Page(Generic[Entry]):
    """Part of a list, and whether it goes on."""

    entries: list[Entry]
    more: bool

    @classmethod
    def of(cls, entries: list[Entry], limit: int) -> "Page[Entry]":
        """From a query for one entry more than the page holds."""
        return cls(entries[:limit], len(entries) > limit)


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
class ImageView:
    """An image with its full parameters."""

    image: Image
    parameters: dict[str, Any]

    @property
    def download_name(self) -> str:
        """File name for saving it."""
        return download_name(self.image.index, self.image.seed, self.format.ending)

    @property
    def format(self) -> Format:
        """The form in which it is delivered."""
        return format_of(self.parameters["output_format"])

    @property
    def version(self) -> str | None:
        """Short name of the picture's content. A farm that was set up anew counts its jobs from 1 again: pages put this
        into addresses, so that no browser shows the picture that it once kept for another job."""
        return self.image.sha256 and self.image.sha256[:16]


@dataclass(frozen=True, slots=True)
class Activity:
    """What a worker does at this moment."""

    job_id: int
    batch_id: int
    stage: Stage
    image_count: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as it is shown."""

    worker: Worker
    alive: bool
    heartbeat_age_seconds: float
    activities: tuple[Activity, ...]


#: Share of the work that counts as done when the base has ended and the refiner follows by image to image.
HALF = 0.5


def list_jobs(
    engine: Engine, board: ProgressBoard, limit: int, before: int | None = None, state: JobState | None = None
) -> Page[JobView]:
    """The newest jobs, newest first; ``before`` goes on where the last page ended."""
    query = select(Job, func.now()).order_by(Job.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Job.id < min(before, MAX_ID))
    if state is not None:
        query = query.where(Job.state == state)
    return Page.of(_job_views(engine, board, query), limit)


def covers(engine: Engine, views: Sequence[JobView]) -> dict[int, ImageView]:
    """Per job, its first finished picture."""
    job_ids = [view.job.id for view in views if view.job.images_completed]
    if not job_ids:
        return {}
    first = (
        select(Image.index)
        .where(Image.job_id == Job.id, Image.state == ImageState.COMPLETED)
        .order_by(Image.index)
        .limit(1)
        .lateral("first")
    )
    chosen = select(Job.id, first.c.index).join(first, true()).where(Job.id.in_(job_ids)).subquery("chosen")
    query = (
        select(Image, Batch.parameters)
        .join(chosen, (chosen.c.id == Image.job_id) & (chosen.c.index == Image.index))
        .join(Batch, Batch.id == Image.batch_id)
    )
    return {view.image.job_id: view for view in _image_views(engine, query)}


def get_job(engine: Engine, board: ProgressBoard, job_id: int) -> JobView:
    """One job; raises NotFoundError."""
    if job_id <= MAX_ID:
        views = _job_views(engine, board, select(Job, func.now()).where(Job.id == job_id))
        if views:
            return views[0]
    raise NotFoundError(f"There is no job {job_id}.")


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


def list_images(
    engine: Engine, job_id: int, limit: int, after: int | None = None, state: ImageState | None = None
) -> Page[ImageView]:
    """A job's images in the order of their index; ``after`` goes on where the last page ended."""
    query = _image_query(job_id).order_by(Image.index).limit(limit + 1)
    if after is not None:
        query = query.where(Image.index > min(after, MAX_INDEX))
    if state is not None:
        query = query.where(Image.state == state)
    return Page.of(_image_views(engine, query), limit)


def get_image(engine: Engine, job_id: int, index: int) -> ImageView:
    """One image; raises NotFoundError."""
    if job_id <= MAX_ID and index <= MAX_INDEX:
        views = _image_views(engine, _image_query(job_id).where(Image.index == index))
        if views:
            return views[0]
    raise NotFoundError(f"There is no image {index} in job {job_id}.")


def ended_since(engine: Engine, job_id: int, since: datetime, below: int | None, limit: int) -> list[ImageView]:
    """A job's images that ended since then, for pages that are open and show those with an index ``below``."""
    query = _image_query(job_id).where(Image.finished_at >= since - timedelta(seconds=COMMIT_SECONDS))
    if below is not None:
        query = query.where(Image.index < min(below, MAX_INDEX))
    return _image_views(engine, query.order_by(Image.index).limit(limit))


def list_workers(engine: Engine, board: ProgressBoard, lease_seconds: float) -> list[WorkerView]:
    """Workers that live, and those that went within the last hour; the living first."""
    with Session(engine, expire_on_commit=False) as session:
        rows = session.execute(
            select(Worker, func.now()).where(Worker.heartbeat_at > func.now() - timedelta(hours=1)).order_by(Worker.id)
        ).all()
        counts = func.count(Image.index)
        running = session.execute(
            select(Batch.id, Batch.job_id, Batch.worker_id, Batch.stage, counts)
            .join(Image, Image.batch_id == Batch.id)
            .where(Batch.state == BatchState.RUNNING)
            .group_by(Batch.id)
            .order_by(Batch.id)
        ).all()
    progress = board.read([batch_id for batch_id, *_ in running])
    activities: dict[str, list[Activity]] = defaultdict(list)
    for batch_id, job_id, worker_id, stage, count in running:
        activities[worker_id or ""].append(
            Activity(job_id, batch_id, stage, count, _of_stage(progress.get(batch_id), stage))
        )
    views = []
    for worker, now in rows:
        age = (now - worker.heartbeat_at).total_seconds()
        alive = worker.stopped_at is None and age < lease_seconds
        views.append(WorkerView(worker, alive, age, tuple(activities[worker.id])))
    return sorted(views, key=lambda view: not view.alive)


def _image_query(job_id: int) -> Select[Image, dict[str, Any]]:
    return select(Image, Batch.parameters).join(Batch, Batch.id == Image.batch_id).where(Image.job_id == job_id)


def _image_views(engine: Engine, query: Select[Image, dict[str, Any]]) -> list[ImageView]:
    with Session(engine, expire_on_commit=False) as session:
        rows = session.execute(query).all()
    return [
        ImageView(
            image,
            {
                **dict.fromkeys(ImageParameters.model_fields),
                **parameters,
                **(image.parameters or {}),
                "prompt": image.prompt,
                "negative_prompt": image.negative_prompt,
                "seed": image.seed,
            },
        )
        for image, parameters in rows
    ]


def _job_views(engine: Engine, board: ProgressBoard, query: Select[Job, datetime]) -> list[JobView]:
    with Session(engine, expire_on_commit=False) as session:
        rows = session.execute(query).all()
        unfinished = [job.id for job, _ in rows if job.finished_at is None]
        active = (
            session.execute(
                select(Batch.job_id, Batch.id, Batch.stage, Batch.parameters, func.count(Image.index))
                .join(Image, Image.batch_id == Batch.id)
                .where(Batch.job_id.in_(unfinished), Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING)))
                .group_by(Batch.id)
            ).all()
            if unfinished
            else []
        )
    started = _started_images(active, board.read([batch_id for _, batch_id, *_ in active]))
    return [
        JobView(job, now, min(1.0, (job.images_completed + job.images_failed + started[job.id]) / job.image_count))
        for job, now in rows
    ]


def _started_images(active: Sequence[Any], progress: dict[int, Progress]) -> dict[int, float]:
    """Per job, how many images' worth of denoising the batches on their way have behind them."""
    started: dict[int, float] = defaultdict(float)
    for job_id, batch_id, stage, parameters, count in active:
        split = parameters.get("refiner_split") or (HALF if is_refined(parameters) else 1.0)
        begin, share = (0.0, split) if stage is Stage.BASE else (split, 1 - split)
        known = _of_stage(progress.get(batch_id), stage)
        started[job_id] += count * (begin + (share * known.step / known.steps if known else 0.0))
    return started


def _of_stage(progress: Progress | None, stage: Stage) -> Progress | None:
    """Progress that still speaks of this stage."""
    return progress if progress is not None and progress.stage is stage else None
