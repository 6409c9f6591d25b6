"""What the galleries ask: pictures of all jobs, a filter's pages by key, a picture's neighbours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, func, literal_column, select, tuple_, union_all

from dashboard.queries.images import ImageView, image_views
from dashboard.queries.paging import MAX_ID, MAX_INDEX, Page
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.models import Batch, Image
from farm.picture_filter import TAGGED, PictureFilter

#: Rows that a download reads at once.
PAGE_OF_ROWS = 500
#: So many pictures before and after one are looked through for words.
NEARBY = 2_000


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Job and index of a picture; written ``7:12``."""

    job_id: int
    index: int

    def __str__(self) -> str:
        return f"{self.job_id}:{self.index}"


@dataclass(frozen=True, slots=True)
class Found:
    """How many pictures a filter finds in a job, and with which index each page of a gallery begins."""

    total: int
    starts: list[int]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A filter's pictures before and after one."""

    before: ImageView | None
    after: ImageView | None


def read_place(field: str, text: str) -> Place:
    """From ``7:12``. Raises InvalidSubmissionError."""
    job_id, _, index = text.partition(":")
    if not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in (job_id, index)):
        raise InvalidSubmissionError([Problem(field, f"{text[:40]!r} is no picture; write JOB:INDEX, such as 7:12")])
    return Place(min(int(job_id), MAX_ID), min(int(index), MAX_INDEX))


def list_pictures(
    engine: Engine, limit: int, chosen: PictureFilter, before: Place | None = None, after: Place | None = None
) -> Page[ImageView]:
    """Pictures of all jobs: the newest job's last first. ``before`` goes on to older ones, ``after`` back to newer.

    Going back, the page still has its newest first, and ``more`` says whether there are newer ones still.
    """
    key = tuple_(Image.job_id, Image.index)
    query = select(Image, Batch.parameters).join(Batch, Batch.id == Image.batch_id)
    query = query.where(*chosen.conditions_everywhere()).limit(limit + 1)
    if after is not None:
        query = query.where(key > (after.job_id, after.index)).order_by(Image.job_id, Image.index)
        page = Page.of(image_views(engine, query), limit)
        return Page(page.entries[::-1], page.more)
    if before is not None:
        query = query.where(key < (before.job_id, before.index))
    return Page.of(image_views(engine, query.order_by(Image.job_id.desc(), Image.index.desc())), limit)


def get_pictures(engine: Engine, places: Sequence[Place]) -> list[ImageView]:
    """These pictures, in this order; raises NotFoundError if one is not there."""
    key = tuple_(Image.job_id, Image.index)
    query = select(Image, Batch.parameters).join(Batch, Batch.id == Image.batch_id)
    views = image_views(engine, query.where(key.in_([(place.job_id, place.index) for place in places])))
    found = {view.place: view for view in views}
    for place in places:
        if str(place) not in found:
            raise NotFoundError(f"There is no image {place.index} in job {place.job_id}.")
    return [found[str(place)] for place in places]


def find_in_job(engine: Engine, job_id: int, chosen: PictureFilter, page_size: int) -> Found:
    """How many of a job's pictures a filter finds, and where its pages begin: galleries can jump to any."""
    place = (func.row_number().over(order_by=Image.index) - 1).label("place")
    total = func.count().over().label("total")
    rows = (
        select(Image.index.label("first"), place, total).where(Image.job_id == job_id, *chosen.conditions()).subquery()
    )
    query = select(rows.c.first, rows.c.total).where(rows.c.place % page_size == 0).order_by(rows.c.first)
    with engine.connect() as connection:
        found = connection.execute(query).all()
    return Found(found[0].total if found else 0, [row.first for row in found])


def neighbours(engine: Engine, job_id: int, index: int, chosen: PictureFilter) -> Neighbours:
    """The pictures before and after one, among those that the filter finds.

    Words are looked for nearby first. If there are none, they are rare, and are better looked up in their index than
    by walking through the job.
    """
    wanted = (Image.job_id == job_id, *chosen.conditions())
    before, after = (*wanted, Image.index < index), (*wanted, Image.index > index)
    if chosen.text is None:
        return _neighbours(engine, job_id, index, _nearest(before, Image.index.desc()), _nearest(after, Image.index))
    low, high = max(index - NEARBY, 0), index + NEARBY
    near = _neighbours(
        engine,
        job_id,
        index,
        _nearest((*before, Image.index >= low), Image.index.desc()),
        _nearest((*after, Image.index <= high), Image.index),
    )
    if near.before is not None and near.after is not None:
        return near
    # An expression, and not the column: so the planner cannot think of walking.
    place = Image.index + literal_column("0")
    far = _neighbours(engine, job_id, index, _nearest(before, place.desc()), _nearest(after, place))
    return Neighbours(near.before or far.before, near.after or far.after)


def _nearest(conditions: Sequence[ColumnElement[bool]], order: ColumnElement[Any] | Any) -> Select[int]:
    return select(Image.index).where(*conditions).order_by(order).limit(1).subquery().select()


def _neighbours(engine: Engine, job_id: int, index: int, before: Select[int], after: Select[int]) -> Neighbours:
    near = union_all(before, after).subquery()
    query = select(Image, Batch.parameters).join(Batch, Batch.id == Image.batch_id).where(Image.job_id == job_id)
    views = image_views(engine, query.where(Image.index.in_(select(near.c.index))))
    return Neighbours(
        next((view for view in views if view.image.index < index), None),
        next((view for view in views if view.image.index > index), None),
    )


def tags_of_job(engine: Engine, job_id: int, limit: int = 100) -> list[str]:
    """Tags that pictures of a job have, in order."""
    tag = func.unnest(Image.tags).label("tag")
    query = select(tag).distinct().where(Image.job_id == job_id, TAGGED)
    with engine.connect() as connection:
        return list(connection.scalars(query.order_by(tag).limit(limit)))


def every_image(engine: Engine, job_id: int, chosen: PictureFilter) -> Iterator[ImageView]:
    """All of a job's images that a filter finds, by index, read page by page as they are asked for."""
    after = -1
    while True:
        query = select(Image, Batch.parameters).join(Batch, Batch.id == Image.batch_id)
        query = query.where(Image.job_id == job_id, Image.index > after, *chosen.conditions())
        views = image_views(engine, query.order_by(Image.index).limit(PAGE_OF_ROWS))
        yield from views
        if len(views) < PAGE_OF_ROWS:
            return
        after = views[-1].image.index
