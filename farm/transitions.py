"""Every write of state by machines: one named, guarded UPDATE (or a few, in one transaction) per legal transition.

A worker's writes carry its attempt; when the row has moved on they change nothing and the function says so. Locks
are taken in one order, job before batch before images, so that cancel and finish cannot deadlock. What people do to
jobs is in ``farm.control``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Engine,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    func,
    insert,
    lateral,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from farm.activity import note
from farm.claims import Claim
from farm.database import seconds_from_now
from farm.doomed import Attempt, doom_attempts, doom_objects
from farm.events import Announcement, Kind, announce
from farm.minutes import note_failure, note_stage
from farm.models import Batch, Image, Job, Worker
from farm.spec import is_refined
from farm.states import BatchState, ImageState, JobState, Stage


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A batch that was just queued under a new attempt: what its message needs."""

    job_id: int
    batch_id: int
    attempt: int
    stage: Stage
    pipeline: str
    refined: bool
    traceparent: str | None = None
    """The trace that its job is part of."""


@dataclass(frozen=True, slots=True)
class FinishedPicture:
    """A picture that lies in the store, ready to be recorded."""

    index: int
    image_key: str
    thumbnail_key: str
    sha256: str
    size: int | None = None
    """Of the picture, in bytes."""


class FailureOutcome(Enum):
    """What became of a batch whose attempt failed."""

    RETRY = "retry"
    SPLIT = "split"
    GIVEN_UP = "given up"
    STALE = "stale"
    """The attempt was not the latest any more; nothing was changed."""


def queue_ready_batches(engine: Engine, counts: Mapping[int, int], stage: Stage) -> list[Dispatched]:
    """ready -> queued: raise the attempt of so many next batches of each job, by its id, of a stage.

    Returns them by job and batch, where fewer were ready fewer. Messages follow after the commit.
    """
    given = {"job_ids": [*counts], "counts": [*counts.values()], "of_stage": stage}
    # One statement is a transaction of its own, and a commit waits for the disk: what is sent together waits once.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        rows = connection.execute(_QUEUE_READY, given).all()
    return [
        Dispatched(
            job_id=row.job_id,
            batch_id=row.id,
            attempt=row.attempt,
            stage=row.stage,
            pipeline=row.parameters["pipeline"],
            refined=is_refined(row.parameters),
            traceparent=row.traceparent,
        )
        for row in sorted(rows, key=lambda row: (row.job_id, row.id))
    ]


def return_lost_messages(engine: Engine, attempts: Sequence[tuple[int, int]]) -> int:
    """queued -> ready: the broker does not hold the messages of these ``(batch, attempt)`` pairs. Returns how many."""
    statement = (
        update(Batch)
        .where(tuple_(Batch.id, Batch.attempt).in_(attempts), Batch.state == BatchState.QUEUED)
        .values(state=BatchState.READY, queued_at=None)
    )
    with engine.begin() as connection:
        return connection.execute(statement).rowcount


def finish_base(
    engine: Engine, batch_id: int, attempt: int, latents_key: str, latents_sha256: str, seconds: float
) -> bool:
    """running base -> queued for the refiner: its latents are in the store. False if the attempt is stale.

    The commit itself makes the batch ready for its refiner; the chain's next message is only the fast path.
    """
    given = {"of_batch": batch_id, "of_attempt": attempt, "took": seconds}
    latents = {"new_latents_key": latents_key, "new_latents_sha256": latents_sha256}
    with engine.begin() as connection:
        ended = connection.execute(_END_BASE, given | latents).one_or_none()
        if ended is None:
            return False
        note_stage(
            connection,
            ended.worker_id,
            Stage.BASE,
            ended.parameters,
            images=ended.images,
            seconds=seconds,
            finished=False,
        )
    return True


def finish_batch(
    engine: Engine, held: Claim, worker_id: str, pictures: Sequence[FinishedPicture], seconds: float
) -> bool:
    """running -> completed: all pictures of a batch are in the store. False if the attempt is stale."""
    with engine.begin() as connection:
        _lock_job(connection, held.job_id)
        mine = {"of_batch": held.batch_id, "of_attempt": held.attempt, "of_stage": held.stage}
        if connection.execute(_END_BATCH[held.stage], mine | {"took": seconds}).rowcount != 1:
            return False
        recorded = {
            "of_job": held.job_id,
            "indices": [picture.index for picture in pictures],
            "image_keys": [picture.image_key for picture in pictures],
            "thumbnail_keys": [picture.thumbnail_key for picture in pictures],
            "sha256s": [picture.sha256 for picture in pictures],
            "sizes": [picture.size for picture in pictures],
        }
        connection.execute(_RECORD_PICTURES, recorded)
        connection.execute(_COUNT_PICTURES, {"of_worker": worker_id, "count": len(pictures)})
        stored = sum(picture.size or 0 for picture in pictures)
        if held.latents_key is not None:
            doom_objects(connection, [held.latents_key])
        ended_job = _roll_up(connection, held.job_id, completed=len(pictures), stored=stored)
        news = [Announcement(Kind.IMAGE_COMPLETED, picture.index) for picture in pictures]
        announce(connection, held.job_id, *news, *ended_job)
        note_stage(
            connection,
            worker_id,
            held.stage,
            held.parameters,
            images=len(pictures),
            seconds=seconds,
            finished=True,
        )
    return True


def fail_attempt(
    engine: Engine,
    batch_id: int,
    attempt: int,
    error: str,
    max_failures: int,
    max_failed_images: int | None = None,
    *,
    latents_lost: bool = False,
    lease_expired: bool = False,
) -> FailureOutcome:
    """running -> ready, split or failed: an attempt failed, by an error or by a lease that ran out.

    The batch is tried again, a little later each time, until it has failed ``max_failures`` times. Then, to find
    the one image that cannot be rendered, it is split in two; a batch of a single image is given up.
    A job of which ``max_failed_images`` have failed, and most of those that ended, is hopeless: the rest fails untried.
    With ``latents_lost`` the next attempt starts over at the base; ``lease_expired`` is counted apart.
    """
    guard = and_(Batch.id == batch_id, Batch.attempt == attempt, Batch.state == BatchState.RUNNING)
    with engine.begin() as connection:
        job_id = connection.scalar(select(Batch.job_id).where(guard))
        if job_id is None:
            return FailureOutcome.STALE
        _lock_job(connection, job_id)
        batch = connection.execute(
            select(Batch.failures, Batch.parameters, Batch.stage, Batch.worker_id, Batch.latents_key)
            .where(guard)
            .with_for_update()
        ).one_or_none()
        if batch is None:
            return FailureOutcome.STALE
        failures = batch.failures + 1
        indices = connection.scalars(select(Image.index).where(Image.batch_id == batch_id).order_by(Image.index)).all()
        changes: dict[str, Any] = {"failures": failures, "error": error, "lease_until": None}
        doom_attempts(connection, [Attempt(job_id, batch_id, attempt, batch.stage, batch.parameters)])
        if latents_lost:
            changes["stage"] = Stage.BASE
        if latents_lost or failures >= max_failures:
            changes |= {"latents_key": None, "latents_sha256": None}
            doom_objects(connection, [batch.latents_key] if batch.latents_key else [])
        if failures < max_failures:
            outcome = FailureOutcome.RETRY
            changes |= {"state": BatchState.READY, "run_after": seconds_from_now(failures - 1)}
        elif len(indices) > 1:
            outcome = FailureOutcome.SPLIT
            changes |= {"state": BatchState.SPLIT, "finished_at": func.now()}
        else:
            outcome = FailureOutcome.GIVEN_UP
            changes |= {"state": BatchState.FAILED, "finished_at": func.now()}
        connection.execute(update(Batch).where(Batch.id == batch_id).values(changes))
        if outcome is FailureOutcome.SPLIT:
            middle = len(indices) // 2
            for half in (indices[:middle], indices[middle:]):
                new_id = connection.scalar(
                    insert(Batch).values(job_id=job_id, parameters=batch.parameters).returning(Batch.id)
                )
                connection.execute(
                    update(Image).where(Image.job_id == job_id, Image.index.in_(half)).values(batch_id=new_id)
                )
        elif outcome is FailureOutcome.GIVEN_UP:
            connection.execute(
                update(Image)
                .where(Image.batch_id == batch_id, Image.state == ImageState.PENDING)
                .values(state=ImageState.FAILED, error=error, finished_at=func.now())
            )
            untried = _stop_hopeless(connection, job_id, max_failed_images, len(indices), error)
            ended_job = _roll_up(connection, job_id, failed=len(indices) + untried)
            news = [Announcement(Kind.IMAGE_FAILED, index, {"error": error}) for index in indices]
            announce(connection, job_id, *news, *ended_job)
        note_failure(
            connection,
            batch.worker_id,
            batch.parameters["pipeline"],
            batch.stage,
            retried=outcome is FailureOutcome.RETRY,
            expired=lease_expired,
        )
    return outcome


def _stop_hopeless(
    connection: Connection, job_id: int, max_failed_images: int | None, failed_now: int, error: str
) -> int:
    """ready or queued -> failed, for all batches of a job that has failed enough. Returns of how many images.

    Its row is locked. What is being rendered goes on to its own end.
    """
    if max_failed_images is None:
        return 0
    job = connection.execute(select(Job.images_completed, Job.images_failed).where(Job.id == job_id)).one()
    failed = job.images_failed + failed_now
    if failed < max_failed_images or failed <= job.images_completed:
        return 0
    reason = f"not tried: {failed} images of the job had failed, most of those that ended; the last one: {error}"
    stopped = connection.execute(
        update(Batch)
        .where(Batch.job_id == job_id, Batch.state.in_((BatchState.READY, BatchState.QUEUED)))
        .values(state=BatchState.FAILED, error=reason, queued_at=None, finished_at=func.now())
        .returning(Batch.id, Batch.latents_key)
    ).all()
    doom_objects(connection, [batch.latents_key for batch in stopped if batch.latents_key is not None])
    untried = connection.execute(
        update(Image)
        .where(
            Image.job_id == job_id,
            Image.state == ImageState.PENDING,
            Image.batch_id.in_(select(Batch.id).where(Batch.job_id == job_id, Batch.state == BatchState.FAILED)),
        )
        .values(state=ImageState.FAILED, error=reason, finished_at=func.now())
    ).rowcount
    if untried:
        note(connection, "farm", "job.stop", job_id, images=untried, failed=failed)
    return untried


def hand_back(engine: Engine, batch_id: int, attempt: int, delay_seconds: float = 0) -> bool:
    """running -> ready: the worker gives the batch up through no fault of the batch. False if the attempt is stale."""
    statement = (
        update(Batch)
        .where(Batch.id == batch_id, Batch.attempt == attempt, Batch.state == BatchState.RUNNING)
        .values(state=BatchState.READY, lease_until=None, run_after=seconds_from_now(delay_seconds))
        .returning(Batch.job_id, Batch.stage, Batch.parameters)
    )
    with engine.begin() as connection:
        batch = connection.execute(statement).one_or_none()
        if batch is None:
            return False
        doom_attempts(connection, [Attempt(batch.job_id, batch_id, attempt, batch.stage, batch.parameters)])
    return True


def register_worker(engine: Engine, worker: Worker) -> None:
    """A worker process introduces itself."""
    with Session(engine) as session, session.begin():
        session.add(worker)


def dismiss_worker(engine: Engine, worker_id: str, reason: str | None = None) -> None:
    """A worker process says goodbye, and why, if it does not leave of its own will."""
    with engine.begin() as connection:
        gone = {"stopped_at": func.now(), "stopped_because": reason}
        connection.execute(update(Worker).where(Worker.id == worker_id).values(gone))


# Made once, as those of ``farm.claims`` are.

_WANTED = (
    func.unnest(bindparam("job_ids", type_=ARRAY(BigInteger)), bindparam("counts", type_=ARRAY(Integer)))
    .table_valued("job_id", "count", name="wanted")
    .render_derived()
)

_NEXT = lateral(
    select(Batch.id)
    .where(
        # Said and ordered so, the index of ready batches is read as far as wanted and no further; of an equality and
        # an order by id alone Postgres makes a walk over all batches where it thinks the job has many.
        Batch.job_id.between(_WANTED.c.job_id, _WANTED.c.job_id),
        Batch.state == BatchState.READY,
        ~Batch.held,
        Batch.stage == bindparam("of_stage", type_=Batch.stage.type),
        Batch.run_after <= func.now(),
    )
    .order_by(Batch.job_id, Batch.id)
    .limit(_WANTED.c.count)
    .with_for_update(skip_locked=True)
)

# As a plain subquery the planner may evaluate it once per row, and take more than the limit.
_CHOSEN = select(_NEXT.c.id).select_from(_WANTED).join(_NEXT, true()).cte("chosen")

_QUEUE_READY = (
    update(Batch)
    .where(Batch.id.in_(select(_CHOSEN.c.id)), Batch.state == BatchState.READY, Job.id == Batch.job_id)
    .values(state=BatchState.QUEUED, attempt=Batch.attempt + 1, queued_at=func.now())
    .returning(Batch.job_id, Batch.id, Batch.attempt, Batch.stage, Batch.parameters, Job.traceparent)
)

_END_BASE = (
    update(Batch)
    .where(
        Batch.id == bindparam("of_batch"),
        Batch.attempt == bindparam("of_attempt"),
        Batch.state == BatchState.RUNNING,
        Batch.stage == Stage.BASE,
    )
    .values(
        state=BatchState.QUEUED,
        stage=Stage.REFINER,
        queued_at=func.now(),
        lease_until=None,
        latents_key=bindparam("new_latents_key"),
        latents_sha256=bindparam("new_latents_sha256"),
        base_seconds=bindparam("took"),
    )
    .returning(
        Batch.worker_id,
        Batch.parameters,
        select(func.count()).where(Image.batch_id == Batch.id).scalar_subquery().label("images"),
    )
)

_LOCK_JOB = select(Job.id).where(Job.id == bindparam("of_job")).with_for_update()

#: By the stage that was the batch's last.
_END_BATCH = {
    stage: update(Batch)
    .where(
        Batch.id == bindparam("of_batch"),
        Batch.attempt == bindparam("of_attempt"),
        Batch.state == BatchState.RUNNING,
        Batch.stage == bindparam("of_stage"),
    )
    .values(
        {
            Batch.state: BatchState.COMPLETED,
            Batch.lease_until: None,
            Batch.latents_key: None,
            Batch.latents_sha256: None,
            Batch.finished_at: func.now(),
            seconds: bindparam("took"),
        }
    )
    for stage, seconds in ((Stage.BASE, Batch.base_seconds), (Stage.REFINER, Batch.refiner_seconds))
}

_PICTURES = (
    func.unnest(
        bindparam("indices", type_=ARRAY(Integer)),
        bindparam("image_keys", type_=ARRAY(Text)),
        bindparam("thumbnail_keys", type_=ARRAY(Text)),
        bindparam("sha256s", type_=ARRAY(Text)),
        bindparam("sizes", type_=ARRAY(BigInteger)),
    )
    .table_valued("index", "image_key", "thumbnail_key", "sha256", "size", name="pictures")
    .render_derived()
)

_RECORD_PICTURES = (
    update(Image)
    .where(Image.job_id == bindparam("of_job"), Image.index == _PICTURES.c.index, Image.state == ImageState.PENDING)
    .values(
        state=ImageState.COMPLETED,
        image_key=_PICTURES.c.image_key,
        thumbnail_key=_PICTURES.c.thumbnail_key,
        sha256=_PICTURES.c.sha256,
        picture_bytes=_PICTURES.c.size,
        finished_at=func.now(),
    )
)

_COUNT_PICTURES = (
    update(Worker)
    .where(Worker.id == bindparam("of_worker"))
    .values(images_completed=Worker.images_completed + bindparam("count", type_=Integer))
)

_ALL_COMPLETED = Job.images_completed + bindparam("completed", type_=Integer)
_ALL_FAILED = Job.images_failed + bindparam("failed", type_=Integer)
_ALL_ENDED = Job.image_count == _ALL_COMPLETED + _ALL_FAILED

_COUNT_INTO_JOB = (
    update(Job)
    .where(Job.id == bindparam("of_job"), Job.state == JobState.RUNNING)
    .values(
        images_completed=_ALL_COMPLETED,
        images_failed=_ALL_FAILED,
        picture_bytes=Job.picture_bytes + bindparam("stored", type_=BigInteger),
        state=case(
            (and_(_ALL_ENDED, _ALL_FAILED == 0), JobState.COMPLETED),
            (_ALL_ENDED, JobState.FAILED),
            else_=Job.state,
        ),
        finished_at=case((_ALL_ENDED, func.now()), else_=None),
        paused_at=case((_ALL_ENDED, None), else_=Job.paused_at),
    )
    .returning(Job.state)
)


def _lock_job(connection: Connection, job_id: int) -> None:
    connection.execute(_LOCK_JOB, {"of_job": job_id})


def _roll_up(
    connection: Connection, job_id: int, *, completed: int = 0, failed: int = 0, stored: int = 0
) -> list[Announcement]:
    """Count ended images, and their bytes, into their job, and end the job with its last image. Its row is locked.

    Returns what there is to announce: the job's end, if this was it.
    """
    counts = {"of_job": job_id, "completed": completed, "failed": failed, "stored": stored}
    state = connection.scalar(_COUNT_INTO_JOB, counts)
    ends = {JobState.COMPLETED: Kind.JOB_COMPLETED, JobState.FAILED: Kind.JOB_FAILED}
    return [Announcement(ends[state])] if state in ends else []
