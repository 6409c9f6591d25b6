"""Objects that are to be removed from the store: doomed in the transaction in which their last row goes.

So a crash loses track of none: ``producer.janitor`` removes them, and forgets them only then.
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import islice

from sqlalchemy import ColumnElement, Connection, delete, func
from sqlalchemy.dialects.postgresql import insert

from farm.models import DoomedObject

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


def spare_objects(connection: Connection, keys: Iterable[str]) -> None:
    """Have these objects stay after all, as they are about to be written anew.

    Whoever is removing one at this moment is waited for.
    """
    left = iter(keys)
    while some := [*islice(left, _KEYS_AT_ONCE)]:
        connection.execute(delete(DoomedObject).where(DoomedObject.key.in_(some)))
