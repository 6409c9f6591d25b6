"""What people do to a job: cancel, pause, resume, retry, priority, name. Guarded writes, like those of the machines.

Locks are taken in the same order as there: job, batches, images. ``by`` is the name of whoever does it, for the log.
"""

from typing import Any

from sqlalchemy import Connection, Engine, case, func, select, update

from farm.activity import note
from farm.database import wake_producer
from farm.models import Batch, Image, Job
from farm.states import BatchState, ImageState, JobState, Stage

UNFINISHED_JOB = (JobState.QUEUED, JobState.RUNNING)
UNFINISHED = (BatchState.READY, BatchState.QUEUED, BatchState.RUNNING)


def cancel_job(engine: Engine, job_id: int, by: str = "") -> bool:
    """queued or running -> cancelled, with all that it has not finished. False if it had already ended.

    Running batches are cancelled at once: their workers learn it by the next heartbeat, and what they still
    write is refused.
    """
    with engine.begin() as connection:
        if not _change(connection, job_id, state=JobState.CANCELLED, finished_at=func.now(), paused_at=None):
            return False
        connection.execute(
            update(Batch)
            .where(Batch.job_id == job_id, Batch.state.in_(UNFINISHED))
            .values(state=BatchState.CANCELLED, queued_at=None, lease_until=None, finished_at=func.now())
        )
        connection.execute(
            update(Image)
            .where(Image.job_id == job_id, Image.state == ImageState.PENDING)
            .values(state=ImageState.CANCELLED, finished_at=func.now())
        )
        note(connection, by, "job.cancel", job_id)
    return True


def pause_job(engine: Engine, job_id: int, by: str = "") -> bool:
    """Let no further batch of the job begin; those that are being rendered are finished. False if it has ended.

    What was queued goes back in line: its messages find nothing to claim.
    """
    with engine.begin() as connection:
        if not _change(connection, job_id, paused_at=func.coalesce(Job.paused_at, func.now())):
            return False
        connection.execute(
            update(Batch)
            .where(Batch.job_id == job_id, Batch.state == BatchState.QUEUED)
            .values(state=BatchState.READY, queued_at=None)
        )
        note(connection, by, "job.pause", job_id)
    return True


def resume_job(engine: Engine, job_id: int, by: str = "") -> bool:
    """Go on with a paused job, and let the rest of a test run follow. False if it has ended."""
    with engine.begin() as connection:
        if not _change(connection, job_id, paused_at=None, test_images=None):
            return False
        connection.execute(update(Batch).where(Batch.job_id == job_id, Batch.held).values(held=False))
        note(connection, by, "job.resume", job_id)
        wake_producer(connection)
    return True


def change_job(
    engine: Engine, job_id: int, by: str = "", *, priority: int | None = None, name: str | None = None
) -> bool:
    """Give a job another priority, which counts from its next batch on, or another name. False if it has ended and
    only the name could be changed.
    """
    with engine.begin() as connection:
        if name is not None:
            connection.execute(update(Job).where(Job.id == job_id).values(name=name))
            note(connection, by, "job.rename", job_id, name=name)
        if priority is None:
            return True
        changed = _change(connection, job_id, priority=priority)
        if changed:
            note(connection, by, "job.priority", job_id, priority=priority)
        wake_producer(connection)
    return changed


def retry_failed(engine: Engine, job_id: int, by: str = "") -> int:
    """failed -> ready: render the job's failed images again, from the base on. Returns how many; 0 when cancelled.

    A failed batch holds a single image (before that it is split), and starts with a clean record.
    """
    with engine.begin() as connection:
        state = connection.scalar(select(Job.state).where(Job.id == job_id).with_for_update())
        if state is None or state is JobState.CANCELLED:
            return 0
        connection.execute(
            update(Batch)
            .where(Batch.job_id == job_id, Batch.state == BatchState.FAILED)
            .values(
                state=BatchState.READY,
                stage=Stage.BASE,
                failures=0,
                error=None,
                finished_at=None,
                run_after=func.now(),
                latents_key=None,
                latents_sha256=None,
            )
        )
        retried = connection.execute(
            update(Image)
            .where(Image.job_id == job_id, Image.state == ImageState.FAILED)
            .values(state=ImageState.PENDING, error=None, finished_at=None)
        ).rowcount
        if retried:
            connection.execute(
                update(Job)
                .where(Job.id == job_id)
                .values(
                    images_failed=Job.images_failed - retried,
                    state=case((Job.state == JobState.FAILED, JobState.RUNNING), else_=Job.state),
                    finished_at=None,
                )
            )
            note(connection, by, "job.retry", job_id, images=retried)
            wake_producer(connection)
    return retried


def _change(connection: Connection, job_id: int, **values: Any) -> bool:
    """Write to a job that has not ended, and hold its lock. False if it has, or is not there."""
    statement = update(Job).where(Job.id == job_id, Job.state.in_(UNFINISHED_JOB)).values(**values)
    return connection.execute(statement).rowcount == 1
