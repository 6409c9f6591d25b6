"""Follows the policies of retention: what was kept as long as it was to be goes, a step at a time.

First pictures whose days are over, then jobs that have had none for as long again, then the oldest pictures of owners
who take more room than they may, then pictures that go in and that no job names. Each step is a short transaction,
which locks and looks again: what was retried, starred or given more days meanwhile stays. Objects are doomed in it
(``farm.doomed``), so that a crash loses track of none. What would go (``plan``) is found by the same queries.
"""

import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import groupby, islice
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Subquery,
    Text,
    and_,
    cast,
    delete,
    exists,
    false,
    func,
    literal,
    not_,
    select,
)

from farm.activity import note
from farm.control import delete_ended_job
from farm.database import seconds_from_now
from farm.doomed import doom_objects
from farm.keys import input_key
from farm.models import Image, Input, Job, JobInput, Preset
from farm.removal import remove_pictures
from farm.retention import Reason, bytes_of_owners, ended_jobs, is_over
from farm.states import ImageState

#: Pictures, or inputs, that go in one transaction.
IMAGES_AT_ONCE = 500
#: Whoever made a picture can fetch it, however little room they have.
NEW = timedelta(hours=1)
#: Pictures that go in are uploaded before the job that names them.
UNUSED = timedelta(days=7)
#: An upload that began before its row went may still write the object.
INPUT_SECONDS = 3600
#: Pause between two rounds of the producer.
ROUND_SECONDS = 60.0
ACTOR = "retention"


@dataclass(frozen=True, slots=True)
class Removal:
    """What went, or would go, of one owner for one reason."""

    owner: str
    reason: Reason
    jobs: int = 0
    """Whole jobs, with their rows; none of their pictures was left."""
    pictures: int = 0
    inputs: int = 0
    bytes: int = 0
    """Of pictures and inputs, as far as their sizes are known."""

    def as_json(self) -> dict[str, Any]:
        """For API and command line."""
        return {**asdict(self), "reason": self.reason.value}


class Stored(NamedTuple):
    """A picture in the store."""

    job_id: int
    image: int
    size: int


def plan(engine: Engine) -> list[Removal]:
    """What would go now."""
    with engine.execution_options(isolation_level="REPEATABLE READ").connect() as connection:
        return added_up(_planned(connection))


def follow_policies(engine: Engine, by: str = ACTOR) -> Generator[Removal]:
    """Remove what is to go now; tells of each step, which is a transaction of its own. Stop at any time."""
    yield from _remove_pictures(engine, by)
    yield from _delete_jobs(engine, by)
    yield from _make_room(engine, by)
    yield from _remove_inputs(engine)


def added_up(removals: Iterable[Removal]) -> list[Removal]:
    """One of each owner and reason."""
    sums: dict[tuple[str, Reason], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for one in removals:
        counts = (one.jobs, one.pictures, one.inputs, one.bytes)
        sums[one.owner, one.reason] = [sum(pair) for pair in zip(sums[one.owner, one.reason], counts, strict=True)]
    return [Removal(owner, reason, *counts) for (owner, reason), counts in sorted(sums.items())]


class Rounds:
    """The policies followed again and again: for a thread that asks for one step at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._steps: Iterator[Removal] | None = None
        self._due = 0.0

    def step(self) -> int:
        """Take one step, if a round is due or goes on; returns how many."""
        if self._steps is None:
            if time.monotonic() < self._due:
                return 0
            self._steps = follow_policies(self._engine)
        # A step that fails ends the round: a generator that raised goes on no more.
        self._due = time.monotonic() + ROUND_SECONDS
        steps, self._steps = self._steps, None
        if next(steps, None) is None:
            return 0
        self._steps = steps
        return 1


def beyond(pictures: Iterable[Stored], stored: int, limit: int) -> Iterator[Stored]:
    """The first of the pictures: so many that of ``stored`` bytes no more than ``limit`` stay, if they are enough."""
    for picture in pictures:
        if stored <= limit:
            return
        stored -= picture.size
        yield picture


def _planned(connection: Connection) -> Iterator[Removal]:
    ended = ended_jobs()
    freed: dict[str, int] = defaultdict(int)
    size = func.coalesce(func.sum(Image.picture_bytes), 0)
    of_whom = (ended.c.owner, ended.c.reason)
    pictures = (
        select(*of_whom, func.count(), size)
        .join(Image, Image.job_id == ended.c.id)
        .where(is_over(ended), _goes(ended.c.keep_starred))
        .group_by(*of_whom)
    )
    for owner, reason, count, total in connection.execute(pictures).all():
        freed[owner] += total
        yield Removal(owner, Reason(reason), pictures=count, bytes=int(total))
    starred = exists().where(Image.job_id == ended.c.id, Image.rating == 1, Image.image_key.is_not(None))
    goes_whole = and_(is_over(ended, 2), not_(and_(ended.c.keep_starred, starred)))
    for owner, reason, count in connection.execute(select(*of_whom, func.count()).where(goes_whole).group_by(*of_whom)):
        yield Removal(owner, Reason(reason), jobs=count)
    for owner, stored, limit in _owners_beyond(connection, freed):
        for picture in beyond(_oldest(connection, owner), stored, limit):
            yield Removal(owner, Reason.MAX_BYTES, pictures=1, bytes=picture.size)
    stays = exists().where(
        JobInput.sha256 == Input.sha256, JobInput.job_id.not_in(select(ended.c.id).where(goes_whole))
    )
    unused = select(func.count(), func.coalesce(func.sum(Input.size), 0)).where(*_unused(), not_(stays))
    count, total = connection.execute(unused).one()
    if count:
        yield Removal("", Reason.UNUSED, inputs=count, bytes=int(total))


def _remove_pictures(engine: Engine, by: str) -> Iterator[Removal]:
    """Those whose days are over."""
    ended = ended_jobs()
    left = exists().where(Image.job_id == ended.c.id, _goes(ended.c.keep_starred))
    for job_id in _jobs(engine, ended, is_over(ended), ended.c.pictures > 0, left):
        while True:
            with engine.begin() as connection:
                removal = _remove_some(connection, job_id, by)
            if removal is None:
                break
            yield removal


def _remove_some(connection: Connection, job_id: int, by: str) -> Removal | None:
    """Some of the pictures of one job, if that is still to be."""
    ended = ended_jobs()
    _lock(connection, job_id)
    columns = (ended.c.owner, ended.c.reason, ended.c.keep_starred)
    job = connection.execute(select(*columns).where(ended.c.id == job_id, is_over(ended))).one_or_none()
    if job is None:
        return None
    pictures = connection.execute(
        select(Image.index, func.coalesce(Image.picture_bytes, 0))
        .where(Image.job_id == job_id, _goes(literal(job.keep_starred)))
        .order_by(Image.index)
        .limit(IMAGES_AT_ONCE)
        .with_for_update()
    ).all()
    if not pictures:
        return None
    count = remove_pictures(connection, job_id, [index for index, _ in pictures])
    note(connection, by, "retention.remove", job_id, images=count, reason=job.reason)
    return Removal(job.owner, Reason(job.reason), pictures=count, bytes=sum(size for _, size in pictures))


def _delete_jobs(engine: Engine, by: str) -> Iterator[Removal]:
    """Those that have ended twice as many days ago as their pictures are kept, and have none left."""
    ended = ended_jobs()
    conditions = (is_over(ended, 2), ended.c.pictures == 0)
    for job_id in _jobs(engine, ended, *conditions):
        with engine.begin() as connection:
            _lock(connection, job_id)
            columns = select(ended.c.owner, ended.c.reason, ended.c.name)
            job = connection.execute(columns.where(ended.c.id == job_id, *conditions)).one_or_none()
            if job is not None:
                delete_ended_job(connection, job_id, job.name, by)
        if job is not None:
            yield Removal(job.owner, Reason(job.reason), jobs=1)


def _make_room(engine: Engine, by: str) -> Iterator[Removal]:
    """The oldest pictures of owners who take more room than they may."""
    with engine.connect() as connection:
        owners = [*_owners_beyond(connection, {})]
    for owner, stored, limit in owners:
        with engine.connect() as connection:
            chosen = beyond(_oldest(connection, owner), stored, limit)
            while some := [*islice(chosen, IMAGES_AT_ONCE)]:
                yield _remove_chosen(engine, owner, some, by)


def _remove_chosen(engine: Engine, owner: str, chosen: Iterable[Stored], by: str) -> Removal:
    ended, count, total = ended_jobs(), 0, 0
    with engine.begin() as connection:
        for job_id, group in groupby(sorted(chosen), lambda picture: picture.job_id):
            _lock(connection, job_id)
            keep_starred = connection.scalar(select(ended.c.keep_starred).where(ended.c.id == job_id))
            if keep_starred is None:
                continue
            pictures = connection.execute(
                select(Image.index, Image.picture_bytes)
                .where(
                    Image.job_id == job_id, Image.index.in_([one.image for one in group]), _goes(literal(keep_starred))
                )
                .with_for_update()
            ).all()
            removed = remove_pictures(connection, job_id, [index for index, _ in pictures])
            note(connection, by, "retention.remove", job_id, images=removed, reason=Reason.MAX_BYTES)
            count, total = count + removed, total + sum(size or 0 for _, size in pictures)
    return Removal(owner, Reason.MAX_BYTES, pictures=count, bytes=total)


def _remove_inputs(engine: Engine) -> Iterator[Removal]:
    """Those that no job names, and that nobody has used for a while."""
    named = exists().where(JobInput.sha256 == Input.sha256)
    some = select(Input.sha256).where(*_unused(), not_(named)).limit(IMAGES_AT_ONCE)
    while True:
        with engine.begin() as connection:
            # Somebody may use it at this moment: that row is looked at again when it is free.
            statement = delete(Input).where(
                Input.sha256.in_(some.scalar_subquery()), Input.used_at < func.now() - UNUSED
            )
            gone = connection.execute(statement.returning(Input.sha256, Input.size)).all()
            doom_objects(connection, [input_key(row.sha256) for row in gone], seconds_from_now(INPUT_SECONDS))
        if not gone:
            return
        yield Removal("", Reason.UNUSED, inputs=len(gone), bytes=sum(row.size for row in gone))


def _goes(keep_starred: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether an image has a picture that may go."""
    return and_(
        Image.state == ImageState.COMPLETED,
        Image.image_key.is_not(None),
        not_(and_(keep_starred, Image.rating == 1)),
    )


def _unused() -> tuple[ColumnElement[bool], ...]:
    in_preset = exists().where(cast(Preset.fields, Text).contains(Input.sha256))
    return Input.used_at < func.now() - UNUSED, not_(in_preset)


def _jobs(engine: Engine, ended: Subquery, *conditions: ColumnElement[bool]) -> Iterable[int]:
    with engine.connect() as connection:
        return connection.scalars(select(ended.c.id).where(*conditions).order_by(ended.c.id)).all()


def _owners_beyond(connection: Connection, freed: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """Owners who take more room than they may: what they take, less what is ``freed`` already, and their limit."""
    owners = bytes_of_owners()
    for owner, taken, limit in connection.execute(select(owners).order_by(owners.c.owner)).all():
        stored = int(taken) - freed.get(owner, 0)
        if stored > limit:
            yield owner, stored, limit


def _oldest(connection: Connection, owner: str) -> Iterator[Stored]:
    """An owner's pictures that may go to make room, in that order: starred ones, if they go at all, go last."""
    ended = ended_jobs()
    query = (
        select(Image.job_id, Image.index, Image.picture_bytes)
        .join(ended, ended.c.id == Image.job_id)
        .where(
            ended.c.owner == owner,
            ended.c.finished_at <= func.now() - NEW,
            # Those whose days are over go anyway.
            not_(func.coalesce(is_over(ended), false())),
            Image.picture_bytes.is_not(None),
            _goes(ended.c.keep_starred),
        )
        .order_by(Image.rating == 1, Image.finished_at, Image.job_id, Image.index)
    )
    with connection.execution_options(yield_per=IMAGES_AT_ONCE).execute(query) as rows:
        for job_id, image, size in rows:
            yield Stored(job_id, image, size or 0)


def _lock(connection: Connection, job_id: int) -> None:
    connection.execute(select(Job.id).where(Job.id == job_id).with_for_update())
