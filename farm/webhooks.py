"""Addresses that are told of events: every write about them and their deliveries, guarded like those of jobs.

``farm.events`` makes the deliveries, ``producer.webhooks`` sends them. Locks are taken in one order: webhook, delivery.
"""

import base64
import random
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select, text, update
from sqlalchemy.orm import Session

from farm.activity import note
from farm.addresses import AllowedHosts
from farm.database import DELIVERIES_CHANNEL
from farm.errors import AddressRefusedError, ConflictError, InvalidSubmissionError, NotFoundError, Problem
from farm.events import KINDS, Happened, Kind
from farm.models import Delivery, Event, Webhook
from farm.outside import read_url
from farm.states import DeliveryState

MAX_WEBHOOKS = 20
"""Of one owner."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - by which receivers know what it is
SECRET_BYTES = 32
#: So long the secret before the present one signs, too: receivers learn the new one without missing anything.
OLD_SECRET_HOURS = 24
#: Pauses after each attempt in vain, in seconds; after the last attempt a delivery has failed.
BACK_OFF_SECONDS = (5, 30, 120, 600, 3_600, 3 * 3_600, 8 * 3_600, 24 * 3_600)
#: A webhook through which nothing got for so long is disabled.
DISABLED_AFTER_DAYS = 3
#: A sender that does not report for so long is taken for dead, and its deliveries are tried by others.
LEASE_SECONDS = 60
GONE = 410
MAX_ERROR_CHARACTERS = 500


class Due(NamedTuple):
    """A delivery that this sender, and for the time being no other, may try."""

    delivery_id: int
    webhook_id: int
    attempt: int
    url: str
    secrets: tuple[str, ...]
    event: Happened
    job: dict[str, Any] | None
    """The job as it is now; None when it is deleted, and for tests."""


def add_webhook(
    engine: Engine,
    owner: str,
    url: str,
    allowed: AllowedHosts,
    kinds: Sequence[str] | None = None,
    *,
    all_jobs: bool = False,
) -> Webhook:
    """Tell an address of what happens to the owner's jobs, or to all; ``kinds`` are all by default.

    Raises InvalidSubmissionError.
    """
    row = {
        "owner": owner,
        "url": _checked_url(url, allowed),
        "kinds": _checked_kinds(KINDS if kinds is None else kinds),
        "all_jobs": all_jobs,
        "secret": _new_secret(),
    }
    with Session(engine, expire_on_commit=False) as session, session.begin():
        count = session.scalar(select(func.count()).where(Webhook.owner == owner)) or 0
        if count >= MAX_WEBHOOKS:
            raise _refusal("url", f"would be your webhook number {count + 1}; at most {MAX_WEBHOOKS} are kept")
        webhook = session.scalars(insert(Webhook).values(row).returning(Webhook)).one()
        note(session.connection(), owner, "webhook.add", url=webhook.url)
    return webhook


def change_webhook(
    engine: Engine,
    webhook_id: int,
    allowed: AllowedHosts,
    by: str,
    *,
    url: str | None = None,
    kinds: Sequence[str] | None = None,
    all_jobs: bool | None = None,
    enabled: bool | None = None,
) -> None:
    """Change what is given. What was on its way when a webhook is disabled has failed, and can be replayed later.

    Raises InvalidSubmissionError, NotFoundError.
    """
    values: dict[str, Any] = {}
    if url is not None:
        values["url"] = _checked_url(url, allowed)
    if kinds is not None:
        values["kinds"] = _checked_kinds(kinds)
    if all_jobs is not None:
        values["all_jobs"] = all_jobs
    if enabled:
        values |= {"disabled_at": None, "disabled_because": None, "failing_since": None}
    with engine.begin() as connection:
        known = connection.scalar(
            update(Webhook).where(Webhook.id == webhook_id).values(values or {"id": Webhook.id}).returning(Webhook.url)
        )
        if known is None:
            raise NotFoundError(f"There is no webhook {webhook_id}.")
        note(connection, by, "webhook.change", url=known)
        if enabled is False:
            _disable(connection, webhook_id, None)


def delete_webhook(engine: Engine, webhook_id: int, by: str) -> None:
    """Forget an address, with its deliveries. Raises NotFoundError."""
    with engine.begin() as connection:
        url = connection.scalar(delete(Webhook).where(Webhook.id == webhook_id).returning(Webhook.url))
        if url is None:
            raise NotFoundError(f"There is no webhook {webhook_id}.")
        note(connection, by, "webhook.delete", url=url)


def rotate_secret(engine: Engine, webhook_id: int, by: str) -> str:
    """A new secret. For a day messages are signed with both, the new one and the one before. Raises NotFoundError."""
    secret = _new_secret()
    statement = (
        update(Webhook)
        .where(Webhook.id == webhook_id)
        .values(
            secret=secret, old_secret=Webhook.secret, old_secret_until=func.now() + timedelta(hours=OLD_SECRET_HOURS)
        )
        .returning(Webhook.url)
    )
    with engine.begin() as connection:
        url = connection.scalar(statement)
        if url is None:
            raise NotFoundError(f"There is no webhook {webhook_id}.")
        note(connection, by, "webhook.rotate", url=url)
    return secret


def send_test(engine: Engine, webhook_id: int) -> int:
    """Let an event that means nothing be delivered to the webhook; returns the delivery.

    Raises NotFoundError, or ConflictError if it is disabled; so do the next two.
    """
    with engine.begin() as connection:
        _require_enabled(connection, webhook_id)
        event_id = connection.scalar(insert(Event).values(kind=Kind.WEBHOOK_TEST).returning(Event.id))
        row = {"webhook_id": webhook_id, "event_id": event_id}
        delivery_id: int = connection.execute(insert(Delivery).values(row).returning(Delivery.id)).scalar_one()
        _wake_senders(connection)
    return delivery_id


def replay(engine: Engine, webhook_id: int, delivery_id: int) -> None:
    """delivered, failed or pending -> pending: send it again, now."""
    with engine.begin() as connection:
        _require_enabled(connection, webhook_id)
        again = update(Delivery).where(Delivery.id == delivery_id, Delivery.webhook_id == webhook_id)
        if connection.execute(again.values(_AGAIN)).rowcount != 1:
            raise NotFoundError(f"Webhook {webhook_id} has no delivery {delivery_id}.")
        _wake_senders(connection)


def replay_failed(engine: Engine, webhook_id: int, since: datetime) -> int:
    """failed -> pending, of all events since then; returns how many."""
    with engine.begin() as connection:
        _require_enabled(connection, webhook_id)
        statement = (
            update(Delivery)
            .where(
                Delivery.webhook_id == webhook_id,
                Delivery.state == DeliveryState.FAILED,
                Delivery.event_id == Event.id,
                Event.at >= since,
            )
            .values(_AGAIN)
        )
        replayed = connection.execute(statement).rowcount
        _wake_senders(connection)
    return replayed


_DUE = text(
    """
    WITH due AS (
        SELECT found.id
        FROM (SELECT * FROM webhooks WHERE disabled_at IS NULL ORDER BY random()) AS webhooks
        LEFT JOIN unnest(CAST(:webhooks AS bigint[]), CAST(:counts AS int[])) AS sending (webhook_id, count)
            ON sending.webhook_id = webhooks.id
        CROSS JOIN LATERAL (
            SELECT id FROM deliveries
            WHERE webhook_id = webhooks.id AND state = 'pending' AND next_attempt_at <= now()
            ORDER BY next_attempt_at, id
            LIMIT greatest(
                CASE WHEN webhooks.failing_since IS NULL THEN :share ELSE 1 END - coalesce(sending.count, 0), 0
            )
            FOR UPDATE SKIP LOCKED
        ) AS found
        LIMIT :places
    ), claimed AS (
        UPDATE deliveries
        SET attempts = attempts + 1, attempted_at = now(), next_attempt_at = now() + make_interval(secs => :lease)
        FROM due WHERE deliveries.id = due.id
        RETURNING deliveries.id, webhook_id, event_id, attempts
    )
    SELECT claimed.id, claimed.webhook_id, claimed.attempts, webhooks.url, webhooks.secret,
        CASE WHEN webhooks.old_secret_until > now() THEN webhooks.old_secret END,
        events.id, events.transaction, events.at, events.kind, events.job_id, events.image_index, events.details,
        CASE WHEN jobs.id IS NOT NULL THEN jsonb_build_object(
            'id', jobs.id, 'name', jobs.name, 'owner', jobs.owner, 'pipeline', jobs.pipeline, 'state', jobs.state,
            'images', jsonb_build_object('total', jobs.image_count, 'completed', jobs.images_completed,
                'failed', jobs.images_failed)
        ) END
    FROM claimed
    JOIN webhooks ON webhooks.id = claimed.webhook_id
    JOIN events ON events.id = claimed.event_id
    LEFT JOIN jobs ON jobs.id = events.job_id
    ORDER BY claimed.id
    """
)


def claim_due(engine: Engine, places: int, share: int, sending: Mapping[int, int]) -> list[Due]:
    """At most so many deliveries whose time has come, at most ``share`` of each webhook with those ``sending`` already.

    A webhook to which the latest attempt was in vain gets one at a time: those that answer are not held up by it.
    """
    given = {
        "places": places,
        "share": share,
        "webhooks": list(sending),
        "counts": list(sending.values()),
        "lease": LEASE_SECONDS,
    }
    with engine.begin() as connection:
        rows = connection.execute(_DUE, given).all()
    return [
        Due(
            delivery_id=row[0],
            webhook_id=row[1],
            attempt=row[2],
            url=row[3],
            secrets=tuple(filter(None, row[4:6])),
            event=Happened(*row[6:13]),
            job=row[13],
        )
        for row in rows
    ]


def note_delivered(engine: Engine, due: Due, status: int) -> bool:
    """pending -> delivered: the receiver has it. False if the attempt is stale."""
    with engine.begin() as connection:
        connection.execute(
            update(Webhook)
            .where(Webhook.id == due.webhook_id, Webhook.failing_since.is_not(None))
            .values(failing_since=None)
        )
        delivered = {"state": DeliveryState.DELIVERED, "delivered_at": func.now(), "next_attempt_at": None}
        return _report(connection, due, status=status, error=None, **delivered)


def note_in_vain(engine: Engine, due: Due, status: int | None, error: str) -> bool:
    """pending -> pending or failed: an attempt was in vain. False if the attempt is stale.

    A webhook that is gone (410), or through which nothing got for days, is disabled.
    """
    with engine.begin() as connection:
        failing = connection.execute(
            update(Webhook)
            .where(Webhook.id == due.webhook_id)
            .values(failing_since=func.coalesce(Webhook.failing_since, func.now()))
            .returning(
                Webhook.failing_since,
                Webhook.failing_since < func.now() - timedelta(days=DISABLED_AFTER_DAYS),
            )
        ).one_or_none()
        if failing is None:
            return False
        since, for_days = failing
        earlier = connection.scalar(select(Delivery.earlier_attempts).where(*_held(due)).with_for_update())
        if earlier is None:
            return False
        values: dict[str, Any] = {"status": status, "error": error[:MAX_ERROR_CHARACTERS]}
        tried = due.attempt - earlier
        if tried > len(BACK_OFF_SECONDS):
            values |= {"state": DeliveryState.FAILED, "next_attempt_at": None}
        else:
            # Receivers that were away are not met by all at the same moment again.
            pause = timedelta(seconds=BACK_OFF_SECONDS[tried - 1] * random.uniform(0.8, 1.2))  # noqa: S311
            values["next_attempt_at"] = func.now() + pause
        _report(connection, due, **values)
        if status == GONE:
            _disable(connection, due.webhook_id, "Its receiver answered that it is gone (410).")
        elif for_days:
            _disable(connection, due.webhook_id, f"Nothing got through since {since:%Y-%m-%d %H:%M} UTC: it {error}.")
    return True


#: Of a delivery that is sent again: its pauses begin anew.
_AGAIN: dict[Any, Any] = {
    Delivery.state: DeliveryState.PENDING,
    Delivery.next_attempt_at: func.now(),
    Delivery.delivered_at: None,
    Delivery.earlier_attempts: Delivery.attempts,
}


def _report(connection: Connection, due: Due, **values: Any) -> bool:
    return connection.execute(update(Delivery).where(*_held(due)).values(**values)).rowcount == 1


def _held(due: Due) -> tuple[ColumnElement[bool], ...]:
    return Delivery.id == due.delivery_id, Delivery.attempts == due.attempt, Delivery.state == DeliveryState.PENDING


def _disable(connection: Connection, webhook_id: int, because: str | None) -> None:
    connection.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None))
        .values(disabled_at=func.now(), disabled_because=because)
    )
    connection.execute(
        update(Delivery)
        .where(Delivery.webhook_id == webhook_id, Delivery.state == DeliveryState.PENDING)
        .values(
            state=DeliveryState.FAILED,
            next_attempt_at=None,
            error=func.coalesce(Delivery.error, "was not sent: the webhook was disabled"),
        )
    )


def _require_enabled(connection: Connection, webhook_id: int) -> None:
    """Raise unless it is told of events; it stays so until the transaction ends."""
    row = connection.execute(
        select(Webhook.disabled_at).where(Webhook.id == webhook_id).with_for_update(key_share=True)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no webhook {webhook_id}.")
    if row.disabled_at is not None:
        raise ConflictError(f"Webhook {webhook_id} is disabled. Enable it first.")


def _wake_senders(connection: Connection) -> None:
    connection.execute(text(f"NOTIFY {DELIVERIES_CHANNEL}"))


def _checked_url(url: str, allowed: AllowedHosts) -> str:
    try:
        return str(read_url(url.strip(), allowed, https=True))
    except AddressRefusedError as error:
        raise _refusal("url", str(error)) from None


def _checked_kinds(kinds: Sequence[str]) -> list[str]:
    known = [kind for kind in KINDS if kind in kinds]
    for kind in kinds:
        if kind not in KINDS:
            raise _refusal("kinds", f"hold {kind!r}; choose from {', '.join(KINDS)}")
    if not known:
        raise _refusal("kinds", "are none; name at least one, such as job.completed")
    return [str(kind) for kind in known]


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
