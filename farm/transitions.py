"""Every write of state by machines: one named, guarded UPDATE (or a few, in one transaction) per legal transition.

A worker's writes carry its attempt; when the row has moved on they change nothing and the function says so. Locks
are taken in one order, job before batch before images, so that cancel and finish cannot deadlock. What people do to
jobs is in ``farm.control``.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import Enum
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    insert,
    lateral,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from farm.events import Announcement, Kind, announce
from farm.minutes import note_failure, note_stage
from farm.models import Batch, Image, Job, Worker
from farm.spec import APART_FIELDS, INTERACTIVE_PRIORITY, is_refined
from farm.states import BatchState, ImageState, JobState, Stage


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A batch that was just queued under a new attempt: what its message needs."""

    batch_id: int
    attempt: int
    stage: Stage
    pipeline: str
    refined: bool


@dataclass(frozen=True, slots=True)
class ClaimedImage:
    """One image of a claimed batch: its place in the job and what is its own among the parameters."""

    index: int
    prompt: str
    negative_prompt: str | None
    seed: int
    parameters: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to render one stage of a batch, until the lease runs out."""

    batch_id: int
    attempt: int
    stage: Stage
    job_id: int
    parameters: dict[str, Any]
    latents_key: str | None
    latents_sha256: str | None
    images: tuple[ClaimedImage, ...]
    interactive: bool = False
    """Whether somebody waits for it: its calls go before those of bulk."""
    may_share: bool = False
    """Whether batches of other jobs may join its calls."""


@dataclass(frozen=True, slots=True)
class FinishedPicture:
    """A picture that lies in the store, ready to be recorded."""

    index: int
    image_key: str
    thumbnail_key: str
    sha256: str


class Wish(Enum):
    """What the heartbeat brings back for a claimed batch."""

    GO_ON = "go on"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a worker's device is. Memory in bytes, utilisation as a share from 0 to 1; None where nobody can tell."""

    memory_used: int | None = None
    memory_total: int | None = None
    utilisation: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a heartbeat brings back."""

    wishes: dict[tuple[int, int], Wish]
    """Per held ``(batch, attempt)``."""
    draining: bool
    """Whether the worker shall take no further batch."""


class FailureOutcome(Enum):
    """What became of a batch whose attempt failed."""

    RETRY = "retry"
    SPLIT = "split"
    GIVEN_UP = "given up"
    STALE = "stale"
    """The attempt was not the latest any more; nothing was changed."""


def queue_ready_batches(engine: Engine, job_id: int, stage: Stage, count: int) -> list[Dispatched]:
    """ready -> queued: raise the attempt of a job's next batches of a stage. Messages follow after the commit."""
    chosen = (
        select(Batch.id)
        .where(
            Batch.job_id == job_id,
            Batch.state == BatchState.READY,
            ~Batch.held,
            Batch.stage == stage,
            Batch.run_after <= func.now(),
        )
        .order_by(Batch.id)
        .limit(count)
        .with_for_update(skip_locked=True)
        # As a plain subquery the planner may evaluate it once per row, and take more than the limit.
        .cte("chosen")
    )
    statement = (
        update(Batch)
        .where(Batch.id.in_(select(chosen.c.id)), Batch.state == BatchState.READY)
        .values(state=BatchState.QUEUED, attempt=Batch.attempt + 1, queued_at=func.now())
        .returning(Batch.id, Batch.attempt, Batch.stage, Batch.parameters)
    )
    with engine.begin() as connection:
        rows = connection.execute(statement).all()
    return [
        Dispatched(
            batch_id=row.id,
            attempt=row.attempt,
            stage=row.stage,
            pipeline=row.parameters["pipeline"],
            refined=is_refined(row.parameters),
        )
        for row in sorted(rows)
    ]


def return_lost_messages(engine: Engine, batch_ids: Sequence[int]) -> int:
    """queued -> ready: the broker does not hold their messages any more. Returns how many."""
    statement = (
        update(Batch)
        .where(Batch.id.in_(batch_ids), Batch.state == BatchState.QUEUED)
        .values(state=BatchState.READY, queued_at=None)
    )
    with engine.begin() as connection:
        return connection.execute(statement).rowcount


def claim(
    engine: Engine, batch_id: int, attempt: int, stage: Stage, worker_id: str, lease_seconds: float
) -> Claim | None:
    """queued -> running: the only right to render. None if the message is stale, doubled or unknown."""
    with engine.connect() as connection, connection.begin() as transaction:
        # Only the job's first claim writes the job's row: later ones would queue up for its lock in vain.
        started = connection.scalar(
            update(Job)
            .where(
                Job.id == select(Batch.job_id).where(Batch.id == batch_id).scalar_subquery(),
                Job.state == JobState.QUEUED,
            )
            .values(state=JobState.RUNNING, started_at=func.now())
            .returning(Job.id)
        )
        rows = connection.execute(
            update(Batch)
            .where(
                Batch.id == batch_id,
                Batch.attempt == attempt,
                Batch.stage == stage,
                Batch.state == BatchState.QUEUED,
                Job.id == Batch.job_id,
            )
            .values(_leased(worker_id, lease_seconds))
            .returning(*_CLAIMED)
        ).all()
        if not rows:
            transaction.rollback()
            return None
        if started is not None:
            announce(connection, started, Announcement(Kind.JOB_STARTED))
        (held,) = _claims(connection, rows)
    return held


def claim_companions(engine: Engine, leader: Claim, worker_id: str, lease_seconds: float, room: int) -> list[Claim]:
    """ready or queued -> running: batches that can join the leader's call, of at most ``room`` images together.

    They are of any owner's interactive jobs, wait for the same stage with equal parameters, and have never failed.
    Of those that are ready a claim raises the attempt, as dispatch does; the messages of the others will find nothing
    to claim. Nothing is waited for: what somebody else holds locked is passed by.
    """
    first = leader.images[0]
    apart = {"negative_prompt": first.negative_prompt} | (first.parameters or {})
    candidates = _companions(tuple(apart.get(name) is not None for name in APART_FIELDS))
    wanted = {"leader_stage": leader.stage, "leader_parameters": leader.parameters, "room": room}
    with engine.begin() as connection:
        chosen = []
        for candidate in connection.execute(candidates, wanted).all():
            if candidate.size <= room:
                room -= candidate.size
                chosen.append(candidate.id)
        if not chosen:
            return []
        rows = connection.execute(
            update(Batch)
            .where(Batch.id.in_(chosen), Job.id == Batch.job_id)
            .values(
                {
                    **_leased(worker_id, lease_seconds),
                    "attempt": Batch.attempt + case((Batch.state == BatchState.READY, 1), else_=0),
                }
            )
            .returning(*_CLAIMED)
        ).all()
        started = connection.scalars(
            update(Job)
            .where(Job.id.in_({row.job_id for row in rows}), Job.state == JobState.QUEUED)
            .values(state=JobState.RUNNING, started_at=func.now())
            .returning(Job.id)
        ).all()
        for job_id in started:
            announce(connection, job_id, Announcement(Kind.JOB_STARTED))
        return _claims(connection, rows)


def renew(
    engine: Engine,
    worker_id: str,
    held: Sequence[tuple[int, int]],
    lease_seconds: float,
    vitals: Vitals | None = None,
) -> Answer:
    """Heartbeat: renew the leases of the ``(batch, attempt)`` pairs that the worker holds, and learn what is wished.

    Also marks the worker as alive, and keeps how it is.
    """
    wishes = dict.fromkeys(held, Wish.LOST)
    report = {} if vitals is None else asdict(vitals)
    with engine.begin() as connection:
        if held:
            mine = tuple_(Batch.id, Batch.attempt).in_(held)
            renewed = connection.execute(
                update(Batch)
                .where(mine, Batch.state == BatchState.RUNNING, Batch.worker_id == worker_id)
                .values(lease_until=_seconds_from_now(lease_seconds))
                .returning(Batch.id, Batch.attempt)
            ).all()
            wishes.update(((row.id, row.attempt), Wish.GO_ON) for row in renewed)
            if len(renewed) < len(held):
                cancelled = connection.execute(
                    select(Batch.id, Batch.attempt).where(mine, Batch.state == BatchState.CANCELLED)
                ).all()
                wishes.update(((row.id, row.attempt), Wish.CANCELLED) for row in cancelled)
        # After its batches, as whoever finishes one does: each would else hold what the other waits for.
        drained_since = connection.scalar(
            update(Worker)
            .where(Worker.id == worker_id)
            .values(heartbeat_at=func.now(), stopped_at=None, **report)
            .returning(Worker.draining_at)
        )
    return Answer(wishes, drained_since is not None)


def finish_base(
    engine: Engine, batch_id: int, attempt: int, latents_key: str, latents_sha256: str, seconds: float
) -> bool:
    """running base -> queued for the refiner: its latents are in the store. False if the attempt is stale.

    The commit itself makes the batch ready for its refiner; the chain's next message is only the fast path.
    """
    statement = (
        update(Batch)
        .where(
            Batch.id == batch_id,
            Batch.attempt == attempt,
            Batch.state == BatchState.RUNNING,
            Batch.stage == Stage.BASE,
        )
        .values(
            state=BatchState.QUEUED,
            stage=Stage.REFINER,
            queued_at=func.now(),
            lease_until=None,
            latents_key=latents_key,
            latents_sha256=latents_sha256,
            base_seconds=seconds,
        )
        .returning(Batch.worker_id, Batch.parameters)
    )
    with engine.begin() as connection:
        ended = connection.execute(statement).one_or_none()
        if ended is None:
            return False
        images = connection.scalar(select(func.count()).where(Image.batch_id == batch_id)) or 0
        note_stage(
            connection,
            ended.worker_id,
            Stage.BASE,
            ended.parameters,
            images=images,
            seconds=seconds,
            finished=False,
        )
    return True


def finish_batch(
    engine: Engine, held: Claim, worker_id: str, pictures: Sequence[FinishedPicture], seconds: float
) -> bool:
    """running -> completed: all pictures of a batch are in the store. False if the attempt is stale."""
    seconds_column = Batch.refiner_seconds if held.stage is Stage.REFINER else Batch.base_seconds
    with engine.begin() as connection:
        _lock_job(connection, held.job_id)
        ended = connection.execute(
            update(Batch)
            .where(
                Batch.id == held.batch_id,
                Batch.attempt == held.attempt,
                Batch.state == BatchState.RUNNING,
                Batch.stage == held.stage,
            )
            .values(
                {
                    Batch.state: BatchState.COMPLETED,
                    Batch.lease_until: None,
                    Batch.latents_key: None,
                    Batch.latents_sha256: None,
                    Batch.finished_at: func.now(),
                    seconds_column: seconds,
                }
            )
        ).rowcount
        if ended != 1:
            return False
        connection.execute(
            update(Image)
            .where(
                Image.job_id == held.job_id,
                Image.index == bindparam("picture_index"),
                Image.state == ImageState.PENDING,
            )
            .values(
                state=ImageState.COMPLETED,
                image_key=bindparam("picture_key"),
                thumbnail_key=bindparam("picture_thumbnail_key"),
                sha256=bindparam("picture_sha256"),
                finished_at=func.now(),
            ),
            [
                {
                    "picture_index": picture.index,
                    "picture_key": picture.image_key,
                    "picture_thumbnail_key": picture.thumbnail_key,
                    "picture_sha256": picture.sha256,
                }
                for picture in pictures
            ],
        )
        connection.execute(
            update(Worker)
            .where(Worker.id == worker_id)
            .values(images_completed=Worker.images_completed + len(pictures))
        )
        ended_job = _roll_up(connection, held.job_id, completed=len(pictures))
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
    engine: Engine, batch_id: int, attempt: int, error: str, max_failures: int, *, latents_lost: bool = False
) -> FailureOutcome:
    """running -> ready, split or failed: an attempt failed, by an error or by a lease that ran out.

    The batch is tried again, a little later each time, until it has failed ``max_failures`` times. Then, to find
    the one image that cannot be rendered, it is split in two; a batch of a single image is given up.
    With ``latents_lost`` the next attempt starts over at the base.
    """
    guard = and_(Batch.id == batch_id, Batch.attempt == attempt, Batch.state == BatchState.RUNNING)
    with engine.begin() as connection:
        job_id = connection.scalar(select(Batch.job_id).where(guard))
        if job_id is None:
            return FailureOutcome.STALE
        _lock_job(connection, job_id)
        batch = connection.execute(
            select(Batch.failures, Batch.parameters, Batch.stage, Batch.worker_id).where(guard).with_for_update()
        ).one_or_none()
        if batch is None:
            return FailureOutcome.STALE
        failures = batch.failures + 1
        indices = connection.scalars(select(Image.index).where(Image.batch_id == batch_id).order_by(Image.index)).all()
        changes: dict[str, Any] = {"failures": failures, "error": error, "lease_until": None}
        if latents_lost:
            changes |= {"stage": Stage.BASE, "latents_key": None, "latents_sha256": None}
        if failures < max_failures:
            outcome = FailureOutcome.RETRY
            changes |= {"state": BatchState.READY, "run_after": _seconds_from_now(failures - 1)}
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
            ended_job = _roll_up(connection, job_id, failed=len(indices))
            news = [Announcement(Kind.IMAGE_FAILED, index, {"error": error}) for index in indices]
            announce(connection, job_id, *news, *ended_job)
        note_failure(connection, batch.worker_id, batch.parameters["pipeline"], batch.stage)
    return outcome


def hand_back(engine: Engine, batch_id: int, attempt: int, delay_seconds: float = 0) -> bool:
    """running -> ready: the worker gives the batch up through no fault of the batch. False if the attempt is stale."""
    statement = (
        update(Batch)
        .where(Batch.id == batch_id, Batch.attempt == attempt, Batch.state == BatchState.RUNNING)
        .values(state=BatchState.READY, lease_until=None, run_after=_seconds_from_now(delay_seconds))
    )
    with engine.begin() as connection:
        return connection.execute(statement).rowcount == 1


def register_worker(engine: Engine, worker: Worker) -> None:
    """A worker process introduces itself."""
    with Session(engine) as session, session.begin():
        session.add(worker)


def dismiss_worker(engine: Engine, worker_id: str) -> None:
    """A worker process says goodbye."""
    with engine.begin() as connection:
        connection.execute(update(Worker).where(Worker.id == worker_id).values(stopped_at=func.now()))


def _leased(worker_id: str, lease_seconds: float) -> dict[str, Any]:
    """What a claim writes to its batch."""
    return {
        "state": BatchState.RUNNING,
        "worker_id": worker_id,
        "lease_until": _seconds_from_now(lease_seconds),
        "queued_at": None,
    }


#: Batches of a size that was asked for stay as they are.
_OWN_BATCH_SIZE = Job.spec["batch_size"].astext

#: What makes a claim, beside the images; ``Job`` is joined.
_CLAIMED = (
    Batch.id,
    Batch.attempt,
    Batch.stage,
    Batch.job_id,
    Batch.parameters,
    Batch.latents_key,
    Batch.latents_sha256,
    Batch.failures,
    Job.priority,
    _OWN_BATCH_SIZE.label("own_batch_size"),
)


def _claims(connection: Connection, rows: Sequence[Row[Any]]) -> list[Claim]:
    images: dict[int, list[ClaimedImage]] = {row.id: [] for row in rows}
    for batch_id, *image in connection.execute(
        select(Image.batch_id, Image.index, Image.prompt, Image.negative_prompt, Image.seed, Image.parameters)
        .where(Image.batch_id.in_(images))
        .order_by(Image.index)
    ):
        images[batch_id].append(ClaimedImage(*image))
    return [
        Claim(
            batch_id=row.id,
            attempt=row.attempt,
            stage=row.stage,
            job_id=row.job_id,
            parameters=row.parameters,
            latents_key=row.latents_key,
            latents_sha256=row.latents_sha256,
            images=tuple(images[row.id]),
            interactive=row.priority >= INTERACTIVE_PRIORITY,
            # Who has failed before is not let near others, and who asked for batches of a size gets them.
            may_share=row.priority >= INTERACTIVE_PRIORITY and row.failures == 0 and row.own_batch_size is None,
        )
        for row in rows
    ]


@cache
def _companions(has: tuple[bool, ...]) -> Select[tuple[int, int]]:
    """Batches that can join a call whose images have so many of ``APART_FIELDS``, and their sizes; locked.

    To be given the leader's stage and parameters, and the room that is left.
    """
    room = bindparam("room", type_=Integer)
    alike = exists().where(
        Image.batch_id == Batch.id,
        *(_image_has(name) if given else ~_image_has(name) for name, given in zip(APART_FIELDS, has, strict=True)),
    )
    size = select(func.count()).where(Image.batch_id == Batch.id).scalar_subquery()
    open_jobs = (
        Job.priority >= INTERACTIVE_PRIORITY,
        Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
        Job.paused_at.is_(None),
        _OWN_BATCH_SIZE.is_(None),
    )
    # Of each job only its next few are looked at, however many it has.
    ready = lateral(
        select(Batch.id)
        .where(Batch.job_id == Job.id, Batch.state == BatchState.READY, ~Batch.held)
        .order_by(Batch.id)
        .limit(room)
    )
    waiting = union_all(
        select(ready.c.id).select_from(Job).join(ready, onclause=true()).where(*open_jobs, Job.finished_at.is_(None)),
        select(Batch.id).where(Batch.state == BatchState.QUEUED),
    ).subquery()
    return (
        select(Batch.id, size.label("size"))
        .join(Job, Job.id == Batch.job_id)
        .where(
            Batch.id.in_(select(waiting.c.id)),
            Batch.state.in_((BatchState.READY, BatchState.QUEUED)),
            Batch.stage == bindparam("leader_stage", type_=Batch.stage.type),
            Batch.failures == 0,
            ~Batch.held,
            Batch.run_after <= func.now(),
            Batch.parameters == bindparam("leader_parameters", type_=Batch.parameters.type),
            alike,
            size <= room,
            *open_jobs,
        )
        # Those that dispatch has chosen go first: it is fair.
        .order_by(Batch.state == BatchState.READY, Batch.id)
        .limit(room)
        .with_for_update(skip_locked=True)
    )


def _image_has(name: str) -> ColumnElement[bool]:
    """Whether an image has one of ``APART_FIELDS``."""
    if name == "negative_prompt":
        return Image.negative_prompt.is_not(None)
    return func.coalesce(Image.parameters.has_key(name), false())


def _lock_job(connection: Connection, job_id: int) -> None:
    connection.execute(select(Job.id).where(Job.id == job_id).with_for_update())


def _roll_up(connection: Connection, job_id: int, *, completed: int = 0, failed: int = 0) -> list[Announcement]:
    """Count ended images into their job, and end the job with its last image. The job's row is locked.

    Returns what there is to announce: the job's end, if this was it.
    """
    all_completed = Job.images_completed + completed
    all_failed = Job.images_failed + failed
    ended = all_completed + all_failed == Job.image_count
    state = connection.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.RUNNING)
        .values(
            images_completed=all_completed,
            images_failed=all_failed,
            state=case(
                (and_(ended, all_failed == 0), JobState.COMPLETED),
                (ended, JobState.FAILED),
                else_=Job.state,
            ),
            finished_at=case((ended, func.now()), else_=None),
            paused_at=case((ended, None), else_=Job.paused_at),
        )
        .returning(Job.state)
    )
    ends = {JobState.COMPLETED: Kind.JOB_COMPLETED, JobState.FAILED: Kind.JOB_FAILED}
    return [Announcement(ends[state])] if state in ends else []


def _seconds_from_now(seconds: float) -> ColumnElement[Any]:
    """A time by the database's clock, the only one that all parts share."""
    return func.now() + timedelta(seconds=seconds)
