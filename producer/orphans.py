"""What store and database do not both know: objects that no row names, and pictures whose object is gone.

A crash between two writes leaves such objects behind, and so does a database that was restored from a backup. What is
younger than a day is left alone: its row may be about to be written. Objects are doomed, and the janitor removes them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import Connection, Engine, select, tuple_

from farm.doomed import doom_objects
from farm.keys import IMAGES, INPUTS, LATENTS, THUMBNAILS
from farm.models import Batch, DoomedObject, Image, Input, Job
from farm.removal import remove_pictures
from farm.states import BatchState
from farm.storage import ObjectStore, StoredObject

#: Objects, or pictures, that are compared in one query.
AT_ONCE = 1_000
#: Younger objects may be waiting for their rows.
YOUNG = timedelta(days=1)
#: Job and image, or job and batch.
_PLACE = re.compile(r"[a-z]+/(\d+)/(\d+)[.-]")


@dataclass(frozen=True, slots=True)
class MissingPictures:
    """Images of a job that are completed and whose pictures the store does not hold."""

    job_id: int
    indices: tuple[int, ...]


def find_orphans(engine: Engine, store: ObjectStore, young: timedelta | None = None) -> Iterator[list[StoredObject]]:
    """Objects that no row names, in portions. ``young`` are those that are left alone, by default those of a day."""
    before = datetime.now(UTC) - (YOUNG if young is None else young)
    for prefix in (IMAGES, THUMBNAILS, LATENTS, INPUTS):
        old = (one for one in store.list(prefix) if one.modified < before)
        while portion := [*islice(old, AT_ONCE)]:
            with engine.connect() as connection:
                known = _named(connection, prefix, portion)
            if orphans := [one for one in portion if one.key not in known]:
                yield orphans


def doom_orphans(engine: Engine, orphans: Sequence[StoredObject]) -> None:
    """Have them removed. Whatever became theirs meanwhile keeps them."""
    with engine.begin() as connection:
        keys = {one.key for one in orphans}
        for prefix in (IMAGES, THUMBNAILS, LATENTS, INPUTS):
            keys -= _named(connection, prefix, [one for one in orphans if one.key.startswith(prefix)])
        doom_objects(connection, sorted(keys))


def find_missing(engine: Engine, store: ObjectStore) -> Iterator[MissingPictures]:
    """Pictures that should be in the store and are not, job by job."""
    with engine.connect() as connection:
        has_pictures = Job.images_completed > Job.images_removed
        jobs = connection.scalars(select(Job.id).where(has_pictures).order_by(Job.id)).all()
    for job_id in jobs:
        with engine.connect() as connection:
            rows = connection.execute(
                select(Image.index, Image.image_key)
                .where(Image.job_id == job_id, Image.image_key.is_not(None))
                .order_by(Image.index)
            ).all()
        # Listed afterwards: what is finished meanwhile is there.
        there = {one.key for one in store.list(f"{IMAGES}{job_id}/")}
        if missing := tuple(index for index, key in rows if key not in there):
            yield MissingPictures(job_id, missing)


def mark_removed(engine: Engine, missing: MissingPictures) -> int:
    """Record that these pictures are gone, so that they can be rendered again; returns how many. Only of ended jobs."""
    with engine.begin() as connection:
        ended = connection.scalar(select(Job.finished_at).where(Job.id == missing.job_id).with_for_update())
        return 0 if ended is None else remove_pictures(connection, missing.job_id, missing.indices)


def _named(connection: Connection, prefix: str, objects: Sequence[StoredObject]) -> set[str]:
    """Those keys that some row names, or that are doomed already."""
    if not objects:
        return set()
    keys = [one.key for one in objects]
    named = set(connection.scalars(select(DoomedObject.key).where(DoomedObject.key.in_(keys))))
    if prefix == INPUTS:
        hashes = {key.rpartition("/")[2]: key for key in keys}
        inputs = connection.scalars(select(Input.sha256).where(Input.sha256.in_(hashes)))
        return named | {hashes[digest] for digest in inputs}
    places = {key: (int(found[1]), int(found[2])) for key in keys if (found := _PLACE.match(key))}
    if prefix == LATENTS:
        wanted = BatchState.READY, BatchState.QUEUED, BatchState.RUNNING
        batches = {batch_id for _, batch_id in places.values()}
        rows = connection.scalars(select(Batch.id).where(Batch.id.in_(batches), Batch.state.in_(wanted)))
        # Whichever attempt they are of: a batch on its way may be about to name them.
        alive = {*rows}
        return named | {key for key, (_, batch_id) in places.items() if batch_id in alive}
    column = Image.image_key if prefix == IMAGES else Image.thumbnail_key
    images = connection.scalars(select(column).where(tuple_(Image.job_id, Image.index).in_({*places.values()})))
    return named | {key for key in images if key is not None}
