"""What pages and API show of workers."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from farm.models import Batch, Image, RenderMinute, Worker
from farm.progress import Progress, ProgressBoard, of_stage
from farm.states import BatchState, Stage
from farm.workers import takes_batches

#: What counts as lately for rates and failures.
LATELY = timedelta(hours=1)
#: A rate over less than this says nothing.
MIN_RATE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Activity:
    """What a worker does at this moment."""

    job_id: int
    batch_id: int
    stage: Stage
    image_count: int
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class LastHour:
    """What a worker did within the last hour."""

    pictures: int = 0
    """Finished with it."""
    images: int = 0
    """Images of stages that it ended; one whose base and refiner it did counts twice."""
    failures: int = 0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as it is shown."""

    worker: Worker
    now: datetime
    alive: bool
    activities: tuple[Activity, ...]
    last_hour: LastHour

    @property
    def heartbeat_age_seconds(self) -> float:
        """Since it last reported."""
        return (self.now - self.worker.heartbeat_at).total_seconds()

    @property
    def state(self) -> str:
        """In one word (or a few)."""
        if not self.alive:
            if self.worker.stopped_because is not None:
                return "failed"
            return "stopped" if self.worker.stopped_at else "no sign of life"
        if self.worker.draining_at:
            return "draining" if self.activities else "drained"
        if self.activities:
            return "rendering"
        return "resting" if self.worker.resting else "idle"

    @property
    def pictures_per_hour(self) -> float | None:
        """Over the last hour, or since it started if that is less; None when it finished none."""
        return self._per_hour(self.last_hour.pictures)

    @property
    def images_per_hour(self) -> float | None:
        """Images of stages per hour: the speed of a worker whose pictures others finish."""
        return self._per_hour(self.last_hour.images)

    @property
    def memory_share(self) -> float | None:
        """How full its memory is, 0 to 1."""
        used, total = self.worker.memory_used, self.worker.memory_total
        return None if used is None or not total else min(1.0, used / total)

    def _per_hour(self, count: int) -> float | None:
        lived = max((self.now - self.worker.started_at).total_seconds(), MIN_RATE_SECONDS)
        return 3600 * count / min(lived, LATELY.total_seconds()) if count else None


def list_workers(engine: Engine, board: ProgressBoard, lease_seconds: float) -> list[WorkerView]:
    """Workers that live, and those that went within the last hour; the living first."""
    with Session(engine, expire_on_commit=False) as session:
        rows = session.execute(
            select(Worker, func.now())
            .where(Worker.heartbeat_at > func.now() - LATELY)
            .order_by(Worker.hostname, Worker.device, Worker.started_at)
        ).all()
        running = session.execute(
            select(Batch.id, Batch.job_id, Batch.worker_id, Batch.stage, func.count(Image.index))
            .join(Image, Image.batch_id == Batch.id)
            .where(Batch.state == BatchState.RUNNING)
            .group_by(Batch.id)
            .order_by(Batch.id)
        ).all()
        totals = [func.sum(RenderMinute.pictures), func.sum(RenderMinute.images), func.sum(RenderMinute.failures)]
        did = session.execute(
            select(RenderMinute.worker_id, *totals)
            .where(RenderMinute.minute > func.now() - LATELY)
            .group_by(RenderMinute.worker_id)
        ).all()
    last_hours = {worker_id: LastHour(*counts) for worker_id, *counts in did}
    progress = board.read([batch_id for batch_id, *_ in running])
    activities: dict[str, list[Activity]] = defaultdict(list)
    for batch_id, job_id, worker_id, stage, count in running:
        activities[worker_id or ""].append(
            Activity(job_id, batch_id, stage, count, of_stage(progress.get(batch_id), stage))
        )
    views = []
    for worker, now in rows:
        alive = worker.stopped_at is None and (now - worker.heartbeat_at).total_seconds() < lease_seconds
        done = last_hours.get(worker.id, LastHour())
        views.append(WorkerView(worker, now, alive, tuple(activities[worker.id]), done))
    return sorted(views, key=lambda view: not view.alive)


def served_stages(engine: Engine, pipeline: str, lease_seconds: float) -> set[Stage]:
    """The stages of a pipeline that some worker takes batches of."""
    query = select(Worker.stages).where(Worker.pipeline == pipeline, takes_batches(lease_seconds))
    with engine.connect() as connection:
        return {Stage(stage) for stages in connection.scalars(query) for stage in stages}


def get_worker(engine: Engine, board: ProgressBoard, lease_seconds: float, worker_id: str) -> WorkerView | None:
    """One of ``list_workers``; None when it has not reported within the last hour."""
    return next((view for view in list_workers(engine, board, lease_seconds) if view.worker.id == worker_id), None)
