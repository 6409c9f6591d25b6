"""Whether database and store tell one story: every contradiction between rows, objects and hashes, with what mends it.

Rows are read in one snapshot, so a farm at work contradicts itself no more than one that rests. What is missing in the
store is looked up once more before it is told: it may have been removed since.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice

from sqlalchemy import Connection, Engine, func, select, text

from farm.errors import ObjectMissingError
from farm.keys import IMAGES, LATENTS, THUMBNAILS, input_key
from farm.models import Batch, Image, Job, JobInput
from farm.states import BatchState, JobState, Stage
from farm.storage import ObjectStore, sha256
from producer.orphans import MissingPictures, find_orphans, mark_removed

#: Contradictions of one kind that are told; a broken farm may have a million.
MOST_OF_A_KIND = 100
#: Pictures that are read at once to compare their hashes.
READERS = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that is true of a farm in which nothing was lost."""

    name: str
    broken: str
    """SQL that gives what contradicts it: a job's id, and a phrase about it."""
    remedy: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Something that is not as it must be."""

    rule: str
    job_id: int | None
    what: str
    remedy: str
    index: int | None = None
    """Of the image whose picture is missing or damaged, where that is the matter."""


@dataclass
class Tally:
    """What was looked at."""

    jobs: int = 0
    images: int = 0
    objects: int = 0


_REPORT = "Nothing that the farm does leads here: keep the database as it is, and report this."
_RECOVERY = "See that a producer runs: farm doctor."

#: Of the rows among each other. CHECK constraints hold what concerns one row alone.
RULES = (
    Rule(
        "counts",
        """
        SELECT jobs.id, format('counts %s completed, %s failed, %s removed of %s; its images are %s, %s, %s of %s',
            images_completed, images_failed, images_removed, image_count, completed, failed, removed, total)
        FROM jobs LEFT JOIN LATERAL (
            SELECT count(*) AS total, count(*) FILTER (WHERE state = 'completed') AS completed,
                count(*) FILTER (WHERE state = 'failed') AS failed, count(removed_at) AS removed
            FROM images WHERE job_id = jobs.id
        ) AS counted ON true
        WHERE (image_count, images_completed, images_failed, images_removed) IS DISTINCT FROM
            (total, completed, failed, removed)
        """,
        _REPORT,
    ),
    Rule(
        "bytes",
        """
        SELECT jobs.id, format('counts %s bytes of pictures, its images have %s', picture_bytes, counted)
        FROM jobs JOIN LATERAL (
            SELECT coalesce(sum(images.picture_bytes) FILTER (WHERE image_key IS NOT NULL), 0) AS counted
            FROM images WHERE job_id = jobs.id
        ) AS summed ON true
        WHERE jobs.picture_bytes <> counted
        """,
        _REPORT,
    ),
    Rule(
        "order",
        """
        SELECT job_id, format('has images from %s to %s, %s in all', min(index), max(index), count(*))
        FROM images GROUP BY job_id HAVING min(index) <> 0 OR max(index) <> count(*) - 1
        """,
        _REPORT,
    ),
    Rule(
        "end of job",
        """
        SELECT id, format('is %s, yet %s', state, CASE WHEN finished_at IS NULL THEN 'all of its images have ended'
            ELSE 'some of its images or batches have not ended' END)
        FROM jobs
        WHERE finished_at IS NULL AND images_completed + images_failed = image_count
            OR finished_at IS NOT NULL AND (
                EXISTS (SELECT FROM images WHERE job_id = jobs.id AND state = 'pending')
                OR EXISTS (SELECT FROM batches WHERE job_id = jobs.id AND state IN ('ready', 'queued', 'running')))
        """,
        _REPORT,
    ),
    Rule(
        "pending image",
        """
        SELECT images.job_id, format('image %s is pending, and its batch %s is %s', index, batches.id, batches.state)
        FROM images JOIN batches ON batches.id = images.batch_id
        WHERE images.state = 'pending' AND batches.state NOT IN ('ready', 'queued', 'running')
        """,
        _REPORT,
    ),
    Rule(
        "ended image",
        """
        SELECT images.job_id, format('image %s is %s, and its batch %s is %s', index, images.state, batches.id,
            batches.state)
        FROM images JOIN batches ON batches.id = images.batch_id
        WHERE images.state <> 'pending'
            AND (images.state::text, batches.state::text) NOT IN
                (('completed', 'completed'), ('failed', 'failed'), ('cancelled', 'cancelled'))
        """,
        _REPORT,
    ),
    Rule(
        "batch of another job",
        """
        SELECT images.job_id, format('image %s is in batch %s of job %s', index, batches.id, batches.job_id)
        FROM images JOIN batches ON batches.id = images.batch_id WHERE batches.job_id <> images.job_id
        """,
        _REPORT,
    ),
    Rule(
        "empty batch",
        """
        SELECT job_id, format('batch %s is %s and has no images', id, state) FROM batches
        WHERE state IN ('ready', 'queued', 'running')
            AND NOT EXISTS (SELECT FROM images WHERE images.batch_id = batches.id)
        """,
        _REPORT,
    ),
    Rule(
        "lease",
        """
        SELECT job_id, format('batch %s: the lease of %s ran out at %s', id, worker_id, lease_until) FROM batches
        WHERE state = 'running' AND lease_until < now() - interval '2 minutes'
        """,
        _RECOVERY,
    ),
)

_RENDER_AGAIN = "Have it rendered again when its job has ended: farm audit --mend, then farm retry --removed {job_id}"


def audit(
    engine: Engine, store: ObjectStore, tally: Tally, *, hashes: bool = False, young: timedelta | None = None
) -> Iterator[Contradiction]:
    """Everything that contradicts itself, as it is found; ``tally`` is brought up to date meanwhile.

    With ``hashes`` every picture is read, and compared with the hash that its row has. Objects that are ``young``, by
    default those of a day, may lack a row.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as snapshot:
        snapshot.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        for rule in RULES:
            for job_id, what in islice(snapshot.execute(text(rule.broken)), MOST_OF_A_KIND):
                yield Contradiction(rule.name, job_id, what, rule.remedy)
        jobs = snapshot.scalars(select(Job.id).order_by(Job.id)).all()
        for job_id in jobs:
            tally.jobs += 1
            yield from _of_pictures(engine, snapshot, store, job_id, tally, hashes=hashes)
        yield from _of_latents(engine, snapshot, store)
        yield from _of_inputs(snapshot, store)
    for some in find_orphans(engine, store, young):
        for one in some:
            tally.objects += 1
            what = f"no row names {one.key}, written {one.modified:%Y-%m-%d %H:%M:%S}"
            yield Contradiction("orphan", None, what, "Remove what nothing names: farm retention orphans")


def mark_broken(engine: Engine, found: Iterable[Contradiction]) -> int:
    """Record of these pictures that they are gone, so that they can be rendered again; returns how many.

    Only of jobs that have ended. What is left of them is removed from the store.
    """
    broken: dict[int, list[int]] = defaultdict(list)
    for one in found:
        if one.job_id is not None and one.index is not None:
            broken[one.job_id].append(one.index)
    return sum(mark_removed(engine, MissingPictures(job_id, tuple(those))) for job_id, those in broken.items())


def _of_pictures(
    engine: Engine, snapshot: Connection, store: ObjectStore, job_id: int, tally: Tally, *, hashes: bool
) -> Iterator[Contradiction]:
    """Of completed images and their objects."""
    rows = snapshot.execute(
        select(Image.index.label("place"), Image.image_key, Image.thumbnail_key, Image.sha256, Image.picture_bytes)
        .where(Image.job_id == job_id, Image.image_key.is_not(None))
        .order_by(Image.index)
    ).all()
    if not rows:
        return
    there = {one.key: one.size for prefix in (IMAGES, THUMBNAILS) for one in store.list(f"{prefix}{job_id}/")}
    tally.images += len(rows)
    tally.objects += len(there)
    wrong: dict[int, str] = {}
    for row in rows:
        if row.image_key not in there:
            wrong[row.place] = f"the store has no {row.image_key}"
        elif row.thumbnail_key not in there:
            wrong[row.place] = f"the store has no {row.thumbnail_key}"
        elif row.picture_bytes not in (None, there[row.image_key]):
            wrong[row.place] = f"{row.image_key} has {there[row.image_key]} bytes in place of {row.picture_bytes}"
    if hashes:
        sound = [row for row in rows if row.place not in wrong]
        with ThreadPoolExecutor(READERS, "readers") as readers:
            read = readers.map(partial(_hash, store), [row.image_key for row in sound])
            for row, found in zip(sound, read, strict=True):
                if found != row.sha256:
                    wrong[row.place] = f"{row.image_key} does not hold what was written"
    # What was removed or rendered anew since is nobody's mistake.
    named = {row.place: row.image_key for row in rows}
    with engine.connect() as connection:
        query = select(Image.index.label("place"), Image.image_key)
        rows_now = connection.execute(query.where(Image.job_id == job_id, Image.index.in_(wrong))).all()
    now = {row.place: row.image_key for row in rows_now}
    for index, what in wrong.items():
        if now.get(index) == named[index]:
            yield Contradiction("picture", job_id, f"image {index}: {what}", _RENDER_AGAIN.format(job_id=job_id), index)


def _hash(store: ObjectStore, key: str) -> str | None:
    try:
        return sha256(store.get(key))
    except ObjectMissingError:
        return None


def _of_latents(engine: Engine, snapshot: Connection, store: ObjectStore) -> Iterator[Contradiction]:
    """Of batches that wait for their refiner."""
    waiting = Batch.state.in_((BatchState.READY, BatchState.QUEUED, BatchState.RUNNING))
    query = select(Batch.id, Batch.job_id, Batch.latents_key).where(waiting, Batch.stage == Stage.REFINER)
    rows = snapshot.execute(query).all()
    if not rows:
        return
    there = {one.key for one in store.list(LATENTS)}
    missing = {row.id: row for row in rows if row.latents_key not in there}
    with engine.connect() as connection:
        still = set(connection.scalars(select(Batch.latents_key).where(waiting, Batch.id.in_(missing))))
    for row in missing.values():
        if row.latents_key in still:
            what = f"batch {row.id} waits for its refiner, and the store has no {row.latents_key}"
            yield Contradiction(
                "latents", row.job_id, what, "None is needed: the refiner will send it back to the base."
            )


def _of_inputs(snapshot: Connection, store: ObjectStore) -> Iterator[Contradiction]:
    """Of pictures that unfinished jobs begin with."""
    named = snapshot.execute(
        select(func.min(Job.id), JobInput.sha256)
        .join(Job, Job.id == JobInput.job_id)
        .where(Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
        .group_by(JobInput.sha256)
    )
    keys = {input_key(digest): job_id for job_id, digest in named}
    folders = {key.rpartition("/")[0] for key in keys}
    there = {one.key for folder in folders for one in store.list(f"{folder}/")}
    for key, job_id in keys.items():
        if key not in there:
            remedy = "Upload the same picture again. If it is then called otherwise, cancel the job and submit it anew."
            yield Contradiction("input", job_id, f"the store has no {key}", remedy)
