"""What pages and API show of workers."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from farm.models import Batch, Image, Worker
from farm.progress import Progress, ProgressBoard, of_stage
from farm.states import BatchState, Stage


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
            Activity(job_id, batch_id, stage, count, of_stage(progress.get(batch_id), stage))
        )
    views = []
    for worker, now in rows:
        age = (now - worker.heartbeat_at).total_seconds()
        alive = worker.stopped_at is None and age < lease_seconds
        views.append(WorkerView(worker, alive, age, tuple(activities[worker.id])))
    return sorted(views, key=lambda view: not view.alive)
