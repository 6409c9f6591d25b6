"""What people do to a job: cancel, pause, resume, retry, priority, name. Guarded writes, like those of the machines.

Locks are taken in the same order as there: job, batches, images. ``by`` is the name of whoever does it, for the log.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

from sqlalchemy import Connection, Engine, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from farm.activity import note
from farm.database import wake_producer
from farm.doomed import Attempt, doom_attempts, doom_objects
from farm.events import Announcement, Kind, announce
from farm.models import Batch, DoomedObject, Image, Job, JobInput
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
        _doom_what_was_begun(connection, job_id)
        connection.execute(
            update(Image)
            .where(Image.job_id == job_id, Image.state == ImageState.PENDING)
            .values(state=ImageState.CANCELLED, finished_at=func.now())
        )
        note(connection, by, "job.cancel", job_id)
        announce(connection, job_id, Announcement(Kind.JOB_CANCELLED))
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
        announce(connection, job_id, Announcement(Kind.JOB_PAUSED))
    return True


def resume_job(engine: Engine, job_id: int, by: str = "") -> bool:
    """Go on with a paused job, and let the rest of a test run follow. False if it has ended."""
    with engine.begin() as connection:
        if not _change(connection, job_id, paused_at=None, test_images=None):
            return False
        connection.execute(update(Batch).where(Batch.job_id == job_id, Batch.held).values(held=False))
        note(connection, by, "job.resume", job_id)
        announce(connection, job_id, Announcement(Kind.JOB_RESUMED))
        wake_producer(connection)
    return True


class JobChanges(TypedDict, total=False):
    """What may change of a job after it was accepted."""

    name: str | None
    """None leaves it as it is."""
    priority: int
    max_devices: int | None
    """None: as many as there are."""
    deadline: datetime | None
    """None takes it away."""
    keep: Mapping[str, int | bool | None]
    """``keep_days``, ``keep_starred`` or both."""


def change_job(engine: Engine, job_id: int, by: str = "", **changes: Unpack[JobChanges]) -> bool:
    """Change what is given of a job; all but its name and what is kept of it counts from its next batch on. False if it
    has ended and only these could be changed.
    """
    name, keep = changes.pop("name", None), changes.pop("keep", None)
    with engine.begin() as connection:
        if keep:
            connection.execute(update(Job).where(Job.id == job_id).values(**keep))
            note(connection, by, "job.keep", job_id, **keep)
            announce(connection, job_id, Announcement(Kind.JOB_CHANGED, details={**keep}))
        if name is not None:
            connection.execute(update(Job).where(Job.id == job_id).values(name=name))
            note(connection, by, "job.rename", job_id, name=name)
            announce(connection, job_id, Announcement(Kind.JOB_CHANGED, details={"name": name}))
        if not changes:
            return True
        changed = _change(connection, job_id, **changes)
        if changed:
            for field, value in changes.items():
                said = value.isoformat(timespec="minutes") if isinstance(value, datetime) else value
                note(connection, by, f"job.{field}", job_id, **{field: "none" if said is None else said})
                announce(connection, job_id, Announcement(Kind.JOB_CHANGED, details={field: said}))
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
            announce(connection, job_id, Announcement(Kind.JOB_RETRIED, details={"images": retried}))
            wake_producer(connection)
    return retried


def delete_job(engine: Engine, job_id: int, by: str = "") -> bool:
    """Delete a job that has ended: its rows at once, its objects soon after. False if there is none that has ended."""
    with engine.begin() as connection:
        ended = select(Job.id, Job.name).where(Job.id == job_id, Job.finished_at.is_not(None)).with_for_update()
        job = connection.execute(ended).one_or_none()
        if job is None:
            return False
        delete_ended_job(connection, job_id, job.name, by)
    return True


def delete_ended_job(connection: Connection, job_id: int, name: str, by: str) -> None:
    """The same for a job that has ended, and whose row is locked."""
    for column in (Image.image_key, Image.thumbnail_key):
        doomed = select(column, func.now()).where(Image.job_id == job_id, column.is_not(None))
        connection.execute(insert(DoomedObject).from_select(["key", "not_before"], doomed).on_conflict_do_nothing())
    announce(connection, job_id, Announcement(Kind.JOB_DELETED, details={"name": name}))
    note(connection, by, "job.delete", job_id, name=name)
    # The foreign keys would do it row by row.
    for table in (Image, Batch, JobInput):
        connection.execute(delete(table).where(table.job_id == job_id))
    connection.execute(delete(Job).where(Job.id == job_id))


def _doom_what_was_begun(connection: Connection, job_id: int) -> None:
    """What workers wrote, or still write, for batches that were cancelled."""
    begun = (Batch.job_id == job_id, Batch.state == BatchState.CANCELLED, Batch.attempt > 0)
    rows = connection.execute(
        select(Batch.id, Batch.attempt, Batch.stage, Batch.parameters, Batch.latents_key).where(*begun)
    ).all()
    doom_objects(connection, [row.latents_key for row in rows if row.latents_key is not None])
    doom_attempts(connection, [Attempt(job_id, row.id, row.attempt, row.stage, row.parameters) for row in rows])


def _change(connection: Connection, job_id: int, **values: Any) -> bool:
    """Write to a job that has not ended, and hold its lock. False if it has, or is not there."""
    statement = update(Job).where(Job.id == job_id, Job.state.in_(UNFINISHED_JOB)).values(**values)
    return connection.execute(statement).rowcount == 1
