"""Objects that are to be removed from the store: doomed in the transaction in which their last row goes.

So a crash loses track of none: ``producer.janitor`` removes them, and forgets them only then.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from farm.formats import format_of
from farm.keys import image_key, latents_key, thumbnail_key
from farm.models import DoomedObject, Image
from farm.spec import is_refined
from farm.states import Stage

#: A worker whose attempt was given up writes its objects until it notices: they are removed only then.
UNTIL_NOTICED = timedelta(minutes=10)
#: A statement holds at most 65,535 values.
_KEYS_AT_ONCE = 10_000


def doom_objects(
    connection: Connection, keys: Iterable[str], not_before: ColumnElement[datetime] | None = None
) -> None:
    """Have these objects removed, at once or when nobody can write them any more."""
    at = func.now() if not_before is None else not_before
    left = iter(keys)
    while some := [{"key": key, "not_before": at} for key in islice(left, _KEYS_AT_ONCE)]:
        connection.execute(insert(DoomedObject).values(some).on_conflict_do_nothing())


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a stage of a batch, and the batch's parameters."""

    job_id: int
    batch_id: int
    attempt: int
    stage: Stage
    parameters: Mapping[str, Any]


def doom_attempts(connection: Connection, attempts: Sequence[Attempt]) -> None:
    """Have removed what attempts wrote, or still write, that were given up: none of it will ever be named."""
    latents, rendered = [], {}
    for one in attempts:
        if one.stage is Stage.BASE and is_refined(one.parameters):
            latents.append(latents_key(one.job_id, one.batch_id, one.attempt))
        else:
            rendered[one.batch_id] = one
    pictures = _pictures_of(connection, rendered)
    doom_objects(connection, (*latents, *pictures), func.now() + UNTIL_NOTICED)


def _pictures_of(connection: Connection, attempts: Mapping[int, Attempt]) -> Iterator[str]:
    if not attempts:
        return
    images = select(Image.batch_id, Image.index).where(Image.batch_id.in_(attempts))
    for batch_id, index in connection.execute(images):
        one = attempts[batch_id]
        ending = format_of(one.parameters.get("output_format")).ending
        yield image_key(one.job_id, index, batch_id, one.attempt, ending)
        yield thumbnail_key(one.job_id, index, batch_id, one.attempt)


def spare_objects(connection: Connection, keys: Iterable[str]) -> None:
    """Have these objects stay after all, as they are about to be written anew.

    Whoever is removing one at this moment is waited for.
    """
    left = iter(keys)
    while some := [*islice(left, _KEYS_AT_ONCE)]:
        connection.execute(delete(DoomedObject).where(DoomedObject.key.in_(some)))
