"""Pictures that go while the rows of their images stay, with all that they were made from; and come back.

Locks are taken as everywhere: job, then images.
"""

from collections.abc import Collection

from sqlalchemy import Connection, Engine, func, select, text, update

from farm.activity import note
from farm.database import wake_producer
from farm.doomed import doom_objects
from farm.events import Announcement, Kind, announce
from farm.models import Image, Job
from farm.states import JobState

_RENDER_AGAIN = text(
    """
    WITH again AS (
        SELECT batch_id AS old, nextval(pg_get_serial_sequence('batches', 'id')) AS new
        FROM (SELECT DISTINCT batch_id FROM images WHERE job_id = :job_id AND removed_at IS NOT NULL) AS emptied
    ), made AS (
        INSERT INTO batches (id, job_id, parameters)
        SELECT again.new, batches.job_id, batches.parameters FROM again JOIN batches ON batches.id = again.old
    )
    UPDATE images
    SET batch_id = again.new, state = 'pending', sha256 = NULL, picture_bytes = NULL, finished_at = NULL,
        removed_at = NULL
    FROM again
    WHERE images.job_id = :job_id AND images.batch_id = again.old AND images.removed_at IS NOT NULL
    """
)


def remove_pictures(connection: Connection, job_id: int, indices: Collection[int]) -> int:
    """Doom the pictures of these images; returns how many there were. The job's row is locked, and it has ended."""
    chosen = (Image.job_id == job_id, Image.index.in_(indices), Image.image_key.is_not(None))
    pictures = connection.execute(
        select(Image.index, Image.image_key, Image.thumbnail_key, Image.picture_bytes).where(*chosen).with_for_update()
    ).all()
    doom_objects(connection, [key for picture in pictures for key in (picture.image_key, picture.thumbnail_key)])
    connection.execute(update(Image).where(*chosen).values(image_key=None, thumbnail_key=None, removed_at=func.now()))
    connection.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(
            images_removed=Job.images_removed + len(pictures),
            picture_bytes=Job.picture_bytes - sum(picture.picture_bytes or 0 for picture in pictures),
        )
    )
    return len(pictures)


def render_removed(engine: Engine, job_id: int, by: str = "") -> int:
    """Render the images anew whose pictures were removed: in batches of their own, from the base on. Returns how many.

    0 for a cancelled job.
    """
    with engine.begin() as connection:
        state = connection.scalar(select(Job.state).where(Job.id == job_id).with_for_update())
        if state is None or state is JobState.CANCELLED:
            return 0
        removed = connection.execute(_RENDER_AGAIN, {"job_id": job_id}).rowcount
        if not removed:
            return 0
        connection.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(
                images_completed=Job.images_completed - removed,
                images_removed=0,
                state=JobState.RUNNING,
                finished_at=None,
            )
        )
        note(connection, by, "job.restore", job_id, images=removed)
        announce(connection, job_id, Announcement(Kind.JOB_RETRIED, details={"images": removed}))
        wake_producer(connection)
    return removed
