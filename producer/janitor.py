"""Removes the objects of deleted jobs from the store, and rows that nobody can ask for any more."""

from datetime import timedelta

from sqlalchemy import Engine, delete, func, select, text

from farm.faults import reach
from farm.models import DoomedObject, IdempotencyKey, TokenDay
from farm.storage import ObjectStore

#: Objects that are removed in one transaction.
OBJECTS_AT_ONCE = 1_000
#: A repeated submission is recognised for at least a day.
KEYS_KEPT = timedelta(hours=48)
TOKEN_DAYS_KEPT = timedelta(days=40)


def remove_doomed_objects(engine: Engine, store: ObjectStore) -> int:
    """Remove some of the objects whose time has come; returns how many. Raises StoreError, and they stay doomed.

    Several producers may do it at once: each takes others.
    """
    with engine.begin() as connection:
        # A slow store is waited for; nobody else needs what is locked meanwhile.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10min'"))
        keys = connection.scalars(
            select(DoomedObject.key)
            .where(DoomedObject.not_before <= func.now())
            .limit(OBJECTS_AT_ONCE)
            .with_for_update(skip_locked=True)
        ).all()
        if keys:
            store.delete_many(keys)
            reach("janitor.removed")
            connection.execute(delete(DoomedObject).where(DoomedObject.key.in_(keys)))
    return len(keys)


def forget_old_keys(engine: Engine) -> int:
    """Remove keys of submissions that may not be repeated any more, and old days of tokens; returns how many."""
    with engine.begin() as connection:
        keys = connection.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - KEYS_KEPT))
        days = connection.execute(delete(TokenDay).where(TokenDay.day < func.current_date() - TOKEN_DAYS_KEPT))
        return keys.rowcount + days.rowcount
