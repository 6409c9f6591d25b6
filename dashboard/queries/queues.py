"""What pages and API show of queues: how much waits, for whom, and for how long."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Integer, case, func, select

from dashboard.queries.workers import LATELY
from farm.models import Batch, Image, Job, RenderMinute, Worker
from farm.queues import QueueCount, count_queues
from farm.states import BatchState, JobState, Stage
from farm.tags import satisfies

#: In the order of the work.
_STAGES = (Stage.BASE, Stage.REFINER)


@dataclass(frozen=True, slots=True)
class QueueView:
    """One pipeline's stage as it is shown."""

    pipeline: str
    stage: Stage
    waiting: int
    """Batches that could begin."""
    waiting_images: int
    running: int
    """Batches."""
    oldest_seconds: float
    workers: int
    """Live workers that serve it and take batches."""
    drained: int
    """Live workers that serve it and are drained, or rest at this time of the day."""
    idle: int
    """Of ``workers``, those that hold no batch."""
    seconds_per_image: float | None
    """A worker's time for each image, as measured over the last hour; None when nothing was measured."""
    paused_jobs: int
    """Unfinished jobs of the pipeline that are paused."""
    held_jobs: int
    """Unfinished jobs of the pipeline whose test run holds back the rest."""
    unmet: tuple[str, ...] = ()
    """What unfinished jobs require of a worker, where no live worker of this queue has it."""

    @property
    def name(self) -> str:
        """``tiny.base``."""
        return f"{self.pipeline}.{self.stage.value}"

    @property
    def work_seconds(self) -> float | None:
        """What waits, as one worker's time."""
        if not self.waiting:
            return 0.0
        return None if self.seconds_per_image is None else self.waiting_images * self.seconds_per_image

    @property
    def seconds_to_empty(self) -> float | None:
        """Until what waits now is done by the workers that there are; None when nobody can tell."""
        work = self.work_seconds
        if not self.waiting:
            return 0.0
        return None if work is None or not self.workers else work / self.workers


@dataclass(frozen=True, slots=True)
class _Jobs:
    paused: int
    held: int
    images_left: int


def list_queues(engine: Engine, lease_seconds: float) -> list[QueueView]:
    """All queues that have work or a live worker, in six queries."""
    with engine.connect() as connection:
        counts = {(queue.pipeline, queue.stage): queue for queue in count_queues(connection)}
        workers = _workers(connection, lease_seconds)
        active = _active_images(connection)
        jobs = _jobs(connection)
        required = _required(connection)
        costs = _costs(connection)
    served = {(row.pipeline, Stage(stage)) for row in workers for stage in row.stages}
    pipelines = {pipeline for pipeline, _ in counts.keys() | served} | jobs.keys()
    views = []
    for pipeline in sorted(pipelines):
        of_jobs = jobs.get(pipeline, _Jobs(0, 0, 0))
        for stage in _STAGES:
            key = (pipeline, stage)
            count = counts.get(key)
            if count is None and key not in served and not (stage is Stage.BASE and (of_jobs.paused or of_jobs.held)):
                continue
            serving = [row for row in workers if _serves(row, *key)]
            view = _view(key, count, serving, active, of_jobs, costs)
            unmet = [one for one in required[pipeline] if not any(satisfies(row.tags, one) for row in serving)]
            views.append(replace(view, unmet=tuple(sorted(unmet))))
    return views


def _view(
    key: tuple[str, Stage],
    count: QueueCount | None,
    workers: Sequence[Any],
    active: "Counter[tuple[str, Stage, bool]]",
    jobs: _Jobs,
    costs: dict[tuple[str, Stage], float],
) -> QueueView:
    pipeline, stage = key
    waiting = count.waiting if count else 0
    if stage is Stage.REFINER:
        images = active[pipeline, stage, False]
    else:
        # What is neither ended nor on its way beyond the base: counted by jobs, which are few, not by images.
        images = jobs.images_left - active[pipeline, stage, True]
        images -= active[pipeline, Stage.REFINER, True] + active[pipeline, Stage.REFINER, False]
    taking = [row for row in workers if row.draining_at is None and not row.resting]
    return QueueView(
        pipeline=pipeline,
        stage=stage,
        waiting=waiting,
        waiting_images=max(images, waiting) if waiting else 0,
        running=count.running if count else 0,
        oldest_seconds=count.oldest_seconds if count else 0.0,
        workers=len(taking),
        drained=len(workers) - len(taking),
        idle=sum(not row.busy for row in taking),
        seconds_per_image=costs.get(key),
        paused_jobs=jobs.paused,
        held_jobs=jobs.held,
    )


def _serves(worker: Any, pipeline: str, stage: Stage) -> bool:
    return worker.pipeline == pipeline and stage.value in worker.stages


def _workers(connection: Connection, lease_seconds: float) -> Sequence[Any]:
    busy = select(Batch.id).where(Batch.state == BatchState.RUNNING, Batch.worker_id == Worker.id).exists()
    return connection.execute(
        select(
            Worker.pipeline, Worker.stages, Worker.tags, Worker.draining_at, Worker.resting, busy.label("busy")
        ).where(Worker.stopped_at.is_(None), Worker.heartbeat_at > func.now() - timedelta(seconds=lease_seconds))
    ).all()


def _active_images(connection: Connection) -> "Counter[tuple[str, Stage, bool]]":
    """Images of batches on their way, by queue and whether they are being rendered. These are few."""
    is_running = Batch.state == BatchState.RUNNING
    of_base_queued = (Batch.stage == Stage.BASE) & ~is_running
    rows = connection.execute(
        select(Job.pipeline, Batch.stage, is_running, func.count(Image.index))
        .select_from(Batch)
        .join(Job, Job.id == Batch.job_id)
        .join(Image, Image.batch_id == Batch.id)
        .where(Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING)), ~of_base_queued)
        .group_by(Job.pipeline, Batch.stage, is_running)
    )
    return Counter({(pipeline, stage, running): count for pipeline, stage, running, count in rows})


def _jobs(connection: Connection) -> dict[str, _Jobs]:
    """Per pipeline, its unfinished jobs."""
    let_go = func.least(func.coalesce(Job.test_images, Job.image_count), Job.image_count)
    left = func.greatest(let_go - Job.images_completed - Job.images_failed, 0)
    goes_on = Job.paused_at.is_(None)
    rows = connection.execute(
        select(
            Job.pipeline,
            func.count().filter(~goes_on),
            func.count().filter(goes_on, Job.test_images.is_not(None)),
            func.coalesce(func.sum(case((goes_on, left), else_=0)), 0).cast(Integer),
        )
        .where(Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
        .group_by(Job.pipeline)
    )
    return {pipeline: _Jobs(*numbers) for pipeline, *numbers in rows}


def _required(connection: Connection) -> Mapping[str, set[str]]:
    """Per pipeline, what its unfinished jobs require of workers."""
    required: dict[str, set[str]] = defaultdict(set)
    rows = connection.execute(
        select(Job.pipeline, Job.requires).where(Job.finished_at.is_(None), Job.requires != "").distinct()
    )
    for pipeline, requires in rows:
        required[pipeline].add(requires)
    return required


def _costs(connection: Connection) -> dict[tuple[str, Stage], float]:
    """Seconds of a worker per image of each queue, as measured lately.

    A worker that serves both stages spends its time on both: to its base's images all of it is counted, because
    refiners go first; to its refiner's images only their own.
    """
    sums = connection.execute(
        select(
            RenderMinute.worker_id,
            RenderMinute.pipeline,
            RenderMinute.stage,
            func.sum(RenderMinute.seconds).label("seconds"),
            func.sum(RenderMinute.images).label("images"),
        )
        .where(RenderMinute.minute > func.now() - LATELY)
        .group_by(RenderMinute.worker_id, RenderMinute.pipeline, RenderMinute.stage)
    ).all()
    both: Counter[tuple[str, str]] = Counter()
    for row in sums:
        both[row.worker_id, row.pipeline] += row.seconds
    seconds: Counter[tuple[str, Stage]] = Counter()
    images: Counter[tuple[str, Stage]] = Counter()
    for row in sums:
        if row.images:
            own = row.seconds if row.stage is Stage.REFINER else both[row.worker_id, row.pipeline]
            seconds[row.pipeline, row.stage] += own
            images[row.pipeline, row.stage] += row.images
    return {key: seconds[key] / images[key] for key in images}
