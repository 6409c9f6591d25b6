"""What people do to a worker: drain it, so that it takes no further batch, and let it take them again."""

from datetime import timedelta

from sqlalchemy import Engine, and_, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from farm.activity import note
from farm.database import wake_producer
from farm.errors import NotFoundError
from farm.models import Worker


def takes_batches(lease_seconds: float) -> ColumnElement[bool]:
    """Whether a worker lives and takes batches now: it is neither drained nor resting."""
    return and_(
        Worker.stopped_at.is_(None),
        Worker.draining_at.is_(None),
        ~Worker.resting,
        Worker.heartbeat_at > func.now() - timedelta(seconds=lease_seconds),
    )


def drain_worker(engine: Engine, worker_id: str, by: str = "") -> bool:
    """Let a worker take no further batch; what it holds it finishes. Raises NotFoundError.

    It learns it by its next heartbeat. Draining one that is drained is fine; False if it has stopped.
    """
    return _change(engine, worker_id, by, "worker.drain", func.coalesce(Worker.draining_at, func.now()))


def resume_worker(engine: Engine, worker_id: str, by: str = "") -> bool:
    """Let a drained worker take batches again. Raises NotFoundError; False if it has stopped."""
    return _change(engine, worker_id, by, "worker.resume", None)


def _change(engine: Engine, worker_id: str, by: str, action: str, draining_at: "ColumnElement[object] | None") -> bool:
    statement = (
        update(Worker).where(Worker.id == worker_id, Worker.stopped_at.is_(None)).values(draining_at=draining_at)
    )
    with engine.begin() as connection:
        if connection.execute(statement).rowcount != 1:
            if connection.scalar(select(Worker.id).where(Worker.id == worker_id)) is None:
                raise NotFoundError(f"There is no worker {worker_id}.")
            return False
        note(connection, by, action, worker=worker_id)
        # Its share of the queue goes to others, or comes back to it.
        wake_producer(connection)
    return True
