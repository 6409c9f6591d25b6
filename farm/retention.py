"""Policies of retention: how long pictures are kept, said by jobs, for owners, and for everybody else.

What a job says goes before its owner's policy, and that before the one for everybody; without any all is kept for
ever. ``producer.retention`` follows them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Engine, FromClause, Subquery, and_, case, delete, exists, func, null, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased, outerjoin

from farm.activity import note
from farm.database import sought
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.models import Job, RetentionPolicy
from farm.people import MAX_NAME_CHARACTERS
from farm.spec import MAX_KEEP_DAYS

#: The owner whose policy is that of all who have none.
EVERYBODY = "*"
MAX_BYTES = 2**62


class Reason(StrEnum):
    """Whose word it is that something goes."""

    JOB = "job"
    OWNER = "owner"
    EVERYBODY = "everybody"
    MAX_BYTES = "max_bytes"
    """The owner's pictures take more room than they may."""
    UNUSED = "unused"
    """A picture that goes in, and that no job names."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What of an owner's pictures is kept; one that says nothing keeps them for ever."""

    keep_days: int | None = None
    keep_starred: bool = True
    max_bytes: int | None = None

    def check(self) -> None:
        """Raise InvalidSubmissionError for what cannot be."""
        problems = []
        if self.keep_days is not None and not 1 <= self.keep_days <= MAX_KEEP_DAYS:
            problems.append(Problem("keep_days", f"must be a whole number from 1 to {MAX_KEEP_DAYS:,}, or none"))
        if self.max_bytes is not None and not 0 <= self.max_bytes <= MAX_BYTES:
            problems.append(Problem("max_bytes", "must be a whole number of bytes, or none"))
        if problems:
            raise InvalidSubmissionError(problems)


def set_policy(engine: Engine, owner: str, policy: Policy, by: str = "") -> RetentionPolicy:
    """Give an owner (``*``: everybody without one) this policy in place of the last. Raises InvalidSubmissionError,
    and NotFoundError for what can be nobody's name.

    Nobody needs to be a user to have one: jobs are kept when their owner is gone.
    """
    policy.check()
    if not 0 < len(owner) <= MAX_NAME_CHARACTERS or not owner.isprintable():
        raise NotFoundError(f"Nobody can be called so: names have 1 to {MAX_NAME_CHARACTERS} printable characters.")
    values = {**asdict(policy), "updated_at": func.now()}
    statement = insert(RetentionPolicy).values(owner=owner, **values)
    with engine.begin() as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=["owner"], set_=values))
        note(connection, by, "retention.set", owner=owner, **asdict(policy))
    return get_policy(engine, owner)


def remove_policy(engine: Engine, owner: str, by: str = "") -> None:
    """Let the policy for everybody count for this owner again. Raises NotFoundError."""
    with engine.begin() as connection:
        removed = connection.execute(delete(RetentionPolicy).where(RetentionPolicy.owner == sought(owner))).rowcount
        if not removed:
            raise _none(owner)
        note(connection, by, "retention.unset", owner=owner)


def get_policy(engine: Engine, owner: str) -> RetentionPolicy:
    """The policy that was set for this owner, and no other; raises NotFoundError."""
    found = list_policies(engine, RetentionPolicy.owner == sought(owner))
    if not found:
        raise _none(owner)
    return found[0]


def list_policies(engine: Engine, *conditions: ColumnElement[bool]) -> Sequence[RetentionPolicy]:
    """All policies by owner, that for everybody first."""
    from sqlalchemy.orm import Session

    query = select(RetentionPolicy).where(*conditions)
    with Session(engine, expire_on_commit=False) as session:
        found = session.scalars(query).all()
    return sorted(found, key=lambda policy: (policy.owner != EVERYBODY, policy.owner))


def describe(policy: RetentionPolicy) -> dict[str, Any]:
    """A policy as API and command line show it."""
    return {
        "owner": policy.owner,
        "keep_days": policy.keep_days,
        "keep_starred": policy.keep_starred,
        "max_bytes": policy.max_bytes,
        "updated_at": policy.updated_at.isoformat(),
    }


def ended_jobs() -> Subquery:
    """Jobs that have ended: the ``keep_days`` and ``keep_starred`` that count for each, the ``reason`` of these, and
    how many of its ``pictures`` are in the store.
    """
    own, everybody = _policies()
    query = select(
        Job.id,
        Job.name,
        Job.owner,
        Job.finished_at,
        (Job.images_completed - Job.images_removed).label("pictures"),
        func.coalesce(Job.keep_days, own.keep_days, everybody.keep_days).label("keep_days"),
        func.coalesce(Job.keep_starred, own.keep_starred, everybody.keep_starred, true()).label("keep_starred"),
        case(
            (Job.keep_days.is_not(None), Reason.JOB.value),
            (own.owner.is_not(None), Reason.OWNER.value),
            else_=Reason.EVERYBODY.value,
        ).label("reason"),
    )
    # Whoever comes after a job may start from its pictures.
    later = aliased(Job)
    awaited = exists().where(later.after_job_id == Job.id, later.finished_at.is_(None))
    ended = Job.finished_at.is_not(None)
    return query.select_from(_with_policies(own, everybody)).where(ended, ~awaited).subquery("ended")


def bytes_of_owners() -> Subquery:
    """Per owner the bytes of all pictures that are ``stored``, and ``max_bytes``, for those who have a limit."""
    own, everybody = _policies()
    limit = case((own.owner.is_not(None), own.max_bytes), else_=everybody.max_bytes)
    query = select(Job.owner, func.sum(Job.picture_bytes).label("stored"), func.max(limit).label("max_bytes"))
    joined = query.select_from(_with_policies(own, everybody)).group_by(Job.owner)
    return joined.having(func.max(limit).is_not(null())).subquery("owners")


def is_over(ended: Subquery, times: int = 1) -> ColumnElement[bool]:
    """Whether a job of ``ended_jobs`` has been kept for its days, or so many times as long."""
    return ended.c.finished_at + func.make_interval(0, 0, 0, times * ended.c.keep_days) <= func.now()


def _policies() -> tuple[type[RetentionPolicy], type[RetentionPolicy]]:
    return aliased(RetentionPolicy, name="own"), aliased(RetentionPolicy, name="everybody")


def _with_policies(own: type[RetentionPolicy], everybody: type[RetentionPolicy]) -> FromClause:
    """Jobs with the one policy that counts: nothing is mixed of an owner's and that for everybody."""
    with_own = outerjoin(Job, own, own.owner == Job.owner)
    return outerjoin(with_own, everybody, and_(everybody.owner == EVERYBODY, own.owner.is_(None)))


def _none(owner: str) -> NotFoundError:
    return NotFoundError(f"No policy was set for {owner!r}; `farm retention show` lists those that were.")
