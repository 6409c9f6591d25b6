"""Marks that people put on pictures: a star, a rejection, tags. They change nothing of what is rendered."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Text, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError

from farm.activity import note
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.models import MAX_TAGS, Image, Job
from farm.picture_filter import PictureFilter

MAX_TAG_CHARACTERS = 50
_TAG_LIMIT = "ck_images_tag_count"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a picture's marks; what is None or empty stays as it is."""

    rating: int | None = None
    """1 starred, -1 rejected, 0 neither."""
    tags: tuple[str, ...] | None = None
    """In place of those that it has."""
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidSubmissionError for a change that changes nothing."""
        if self.rating is None and self.tags is None and not self.add and not self.remove:
            raise _refusal("body", "changes nothing; give a rating or tags")

    def as_json(self) -> dict[str, Any]:
        """For the activity log."""
        told = {"rating": self.rating, "tags": self.tags, "add_tags": self.add, "remove_tags": self.remove}
        return {name: value for name, value in told.items() if value not in (None, ())}


def read_rating(value: object, field: str = "rating") -> int:
    """A rating as it was sent. Raises InvalidSubmissionError."""
    ratings = {-1: -1, 0: 0, 1: 1, "-1": -1, "0": 0, "1": 1}
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in ratings:
        raise _refusal(field, "must be 1 (starred), -1 (rejected) or 0 (neither)")
    return ratings[value]


def read_tags(values: object, field: str = "tags") -> tuple[str, ...]:
    """Tags as they were sent, in order and each once. Raises InvalidSubmissionError."""
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise _refusal(field, 'must be a list of words such as ["portrait", "for the cover"]')
    tags = sorted({" ".join(value.split()) for value in values})
    for tag in tags:
        if not 1 <= len(tag) <= MAX_TAG_CHARACTERS:
            raise _refusal(field, f"{tag[:60]!r} has {len(tag)} characters; write 1 to {MAX_TAG_CHARACTERS}")
        if "," in tag or not tag.isprintable():
            raise _refusal(field, f"{tag!r} holds a comma or a character that cannot be seen; leave it out")
    if len(tags) > MAX_TAGS:
        raise _too_many(field)
    return tuple(tags)


def split_tags(text: str, field: str = "tags") -> tuple[str, ...]:
    """Tags with commas between them, as forms send them. Raises InvalidSubmissionError."""
    return read_tags([part for part in text.split(",") if part.strip()], field)


def mark_image(engine: Engine, job_id: int, index: int, change: Change) -> None:
    """Change one picture's marks. Raises NotFoundError, and InvalidSubmissionError for too many tags."""
    statement = update(Image).where(Image.job_id == job_id, Image.index == index).values(_values(change))
    try:
        with engine.begin() as connection:
            if not connection.execute(statement).rowcount:
                raise NotFoundError(f"There is no image {index} in job {job_id}.")
    except IntegrityError as error:
        raise _explained(error) from error


def mark_images(engine: Engine, job_id: int, chosen: PictureFilter, change: Change, by: str = "") -> int:
    """Change the marks of all these pictures of a job, or of none. Returns how many they are.

    Raises NotFoundError without such a job, and InvalidSubmissionError if one would get too many tags. The job is
    locked first, as everywhere: so no two writers of many images wait for each other.
    """
    try:
        with engine.begin() as connection:
            if connection.scalar(select(Job.id).where(Job.id == job_id).with_for_update()) is None:
                raise NotFoundError(f"There is no job {job_id}.")
            statement = update(Image).where(Image.job_id == job_id, *chosen.conditions()).values(_values(change))
            count = connection.execute(statement).rowcount
            note(connection, by, "images.mark", job_id, images=count, **change.as_json(), chosen=chosen.as_json())
    except IntegrityError as error:
        raise _explained(error) from error
    return count


def _values(change: Change) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if change.rating is not None:
        values["rating"] = change.rating
    if change.tags is not None or change.add or change.remove:
        tags = Image.tags if change.tags is None else _array(change.tags)
        # In order and each once, by the database: another may have added one since the page was loaded.
        added = func.unnest(tags.op("||")(_array(change.add))).column_valued("tag")
        kept = select(added).distinct().where(added != func.all(_array(change.remove))).order_by(added)
        values["tags"] = func.array(kept.scalar_subquery(), type_=ARRAY(Text))
    return values


def _array(tags: Iterable[str]) -> Any:
    return literal(list(tags), ARRAY(Text))


def _explained(error: IntegrityError) -> Exception:
    name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return _too_many("tags") if name == _TAG_LIMIT else error


def _too_many(field: str) -> InvalidSubmissionError:
    return _refusal(field, f"would be more than {MAX_TAGS} on one picture; remove some")


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
