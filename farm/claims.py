"""Claims: the only right to render, and the heartbeat that keeps it. Named, guarded writes, as in ``farm.transitions``.

A claim is a lease with a number, the attempt: what a worker writes later carries it, or changes no row.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from enum import Enum
from functools import cache
from typing import Any

from sqlalchemy import (
    Engine,
    Integer,
    Interval,
    Row,
    Select,
    bindparam,
    case,
    exists,
    false,
    func,
    lateral,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.sql.elements import ColumnElement

from farm.events import Announcement, Kind, announce
from farm.models import Batch, Image, Job, Worker
from farm.queues import waits_for_no_job
from farm.spec import APART_FIELDS, INTERACTIVE_PRIORITY
from farm.states import BatchState, JobState, Stage


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
    requires: str = ""
    """What its job requires of a worker."""
    traceparent: str | None = None
    """The trace that its job is part of."""


class Wish(Enum):
    """What the heartbeat brings back for a claimed batch."""

    GO_ON = "go on"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a worker's device is. Memory in bytes, utilisation as a share from 0 to 1; None where nobody can tell.

    The names are those of the columns of ``farm.models.Worker``.
    """

    memory_used: int | None = None
    memory_total: int | None = None
    utilisation: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    ecc_errors: int | None = None
    xid_errors: int | None = None
    last_xid: int | None = None
    resting: bool = False
    """Whether the worker takes no batch at this time of the day."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker shall serve in place of what it serves."""

    pipeline: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a heartbeat brings back."""

    wishes: dict[tuple[int, int], Wish]
    """Per held ``(batch, attempt)``."""
    draining: bool
    """Whether the worker shall take no further batch."""
    requirements: frozenset[str] = frozenset()
    """What unfinished jobs of its pipeline require of workers, beside those that require nothing."""
    wanted: Wanted | None = None


def claim(
    engine: Engine, batch_id: int, attempt: int, stage: Stage, worker_id: str, lease_seconds: float
) -> Claim | None:
    """queued -> running: the only right to render. None if the message is stale, doubled or unknown."""
    message = {"of_batch": batch_id, "of_attempt": attempt, "of_stage": stage}
    claimed_by = message | _leased(worker_id, lease_seconds)
    # Only the job's first claim writes the job's row: later ones would queue up for its lock in vain. They are one
    # statement, and with it a transaction.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        row = connection.execute(_CLAIM_OF_STARTED, claimed_by).one_or_none()
    if row is not None:
        return _claim(row)
    with engine.connect() as connection, connection.begin() as transaction:
        started = connection.scalar(_START_JOB_OF, {"of_batch": batch_id})
        row = connection.execute(_CLAIM, claimed_by).one_or_none()
        if row is None:
            transaction.rollback()
            return None
        if started is not None:
            announce(connection, started, Announcement(Kind.JOB_STARTED))
    return _claim(row)


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
    wanted["leader_requires"] = leader.requires
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
            .values(_LEASED | {Batch.attempt: Batch.attempt + case((Batch.state == BatchState.READY, 1), else_=0)})
            .returning(*_CLAIMED),
            _leased(worker_id, lease_seconds),
        ).all()
        started = connection.scalars(
            update(Job)
            .where(Job.id.in_({row.job_id for row in rows}), Job.state == JobState.QUEUED)
            .values(state=JobState.RUNNING, started_at=func.now())
            .returning(Job.id)
        ).all()
        for job_id in started:
            announce(connection, job_id, Announcement(Kind.JOB_STARTED))
    return [_claim(row) for row in rows]


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
    with engine.begin() as connection:
        # A renewal that a crash of Postgres undoes is a lease that ends sooner: nobody need wait for the disk.
        connection.execute(_DO_NOT_WAIT)
        if held:
            mine = {"claims": held}
            renewed = connection.execute(_RENEW, mine | _leased(worker_id, lease_seconds)).all()
            wishes.update(((row.id, row.attempt), Wish.GO_ON) for row in renewed)
            if len(renewed) < len(held):
                cancelled = connection.execute(_CANCELLED, mine).all()
                wishes.update(((row.id, row.attempt), Wish.CANCELLED) for row in cancelled)
        # After its batches, as whoever finishes one does: each would else hold what the other waits for.
        statement, report = (_BEAT, {}) if vitals is None else (_BEAT_WITH_VITALS, asdict(vitals))
        answer = connection.execute(statement, report | {"beating": worker_id}).one_or_none()
    if answer is None:
        return Answer(wishes, draining=False)
    wanted = None
    if answer.wanted_pipeline is not None:
        wanted = Wanted(answer.wanted_pipeline, tuple(map(Stage, answer.wanted_stages)))
    return Answer(wishes, answer.draining_at is not None, frozenset(answer.requirements), wanted)


def _leased(worker_id: str, lease_seconds: float) -> dict[str, Any]:
    """What ``_LEASED`` is to be given."""
    return {"leased_by": worker_id, "leased_for": timedelta(seconds=lease_seconds)}


# The statements that every batch and every heartbeat need are made once: to build and to compare one takes SQLAlchemy
# longer than Postgres takes to execute it.

_LEASED_UNTIL = func.now() + bindparam("leased_for", type_=Interval)

#: What a claim writes to its batch.
_LEASED: dict[Any, Any] = {
    Batch.state: BatchState.RUNNING,
    Batch.worker_id: bindparam("leased_by"),
    Batch.lease_until: _LEASED_UNTIL,
    Batch.queued_at: None,
}

#: Batches of a size that was asked for stay as they are.
_OWN_BATCH_SIZE = Job.spec["batch_size"].astext

_IMAGES = (
    select(
        func.jsonb_agg(
            aggregate_order_by(
                func.jsonb_build_array(Image.index, Image.prompt, Image.negative_prompt, Image.seed, Image.parameters),
                Image.index,
            )
        )
    )
    .where(Image.batch_id == Batch.id)
    .scalar_subquery()
)

#: What makes a claim; ``Job`` is joined.
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
    Job.requires,
    Job.traceparent,
    _OWN_BATCH_SIZE.label("own_batch_size"),
    _IMAGES.label("images"),
)


_START_JOB_OF = (
    update(Job)
    .where(
        Job.id == select(Batch.job_id).where(Batch.id == bindparam("of_batch")).scalar_subquery(),
        Job.state == JobState.QUEUED,
    )
    .values(state=JobState.RUNNING, started_at=func.now())
    .returning(Job.id)
)

_CLAIM = (
    update(Batch)
    .where(
        Batch.id == bindparam("of_batch"),
        Batch.attempt == bindparam("of_attempt"),
        Batch.stage == bindparam("of_stage"),
        Batch.state == BatchState.QUEUED,
        Job.id == Batch.job_id,
    )
    .values(_LEASED)
    .returning(*_CLAIMED)
)

#: It writes nothing where the job waits for its first claim.
_CLAIM_OF_STARTED = _CLAIM.where(Job.state != JobState.QUEUED)

_IS_HELD = tuple_(Batch.id, Batch.attempt).in_(bindparam("claims", expanding=True))

_RENEW = (
    update(Batch)
    .where(_IS_HELD, Batch.state == BatchState.RUNNING, Batch.worker_id == bindparam("leased_by"))
    .values(lease_until=_LEASED_UNTIL)
    .returning(Batch.id, Batch.attempt)
)

_CANCELLED = select(Batch.id, Batch.attempt).where(_IS_HELD, Batch.state == BatchState.CANCELLED)

_DO_NOT_WAIT = select(func.set_config("synchronous_commit", "off", True))

_BEAT = (
    update(Worker)
    .where(Worker.id == bindparam("beating"))
    .values(heartbeat_at=func.now(), stopped_at=None)
    .returning(
        Worker.draining_at,
        Worker.wanted_pipeline,
        Worker.wanted_stages,
        func.array(
            select(Job.requires)
            .where(Job.finished_at.is_(None), Job.requires != "", Job.pipeline == Worker.pipeline)
            .distinct()
            .scalar_subquery()
        ).label("requirements"),
    )
)

_BEAT_WITH_VITALS = _BEAT.values({one.name: bindparam(one.name) for one in fields(Vitals)})


def _claim(row: Row[Any]) -> Claim:
    return Claim(
        batch_id=row.id,
        attempt=row.attempt,
        stage=row.stage,
        job_id=row.job_id,
        parameters=row.parameters,
        latents_key=row.latents_key,
        latents_sha256=row.latents_sha256,
        images=tuple(ClaimedImage(*image) for image in row.images or ()),
        interactive=row.priority >= INTERACTIVE_PRIORITY,
        # Who has failed before is not let near others, and who asked for batches of a size gets them.
        may_share=row.priority >= INTERACTIVE_PRIORITY and row.failures == 0 and row.own_batch_size is None,
        requires=row.requires,
        traceparent=row.traceparent,
    )


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
        Job.requires == bindparam("leader_requires", type_=Job.requires.type),
        waits_for_no_job(),
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
