"""What happened to jobs and images: written in the transaction that makes it so, for all who want to be told.

Streams (``dashboard``) read the events, webhooks get a delivery each (``producer.webhooks``), and whoever waits at this
moment is woken by ``NOTIFY``. A job's events have rising numbers: they are written while the job's row is locked.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, bindparam, delete, func, text
from sqlalchemy.dialects.postgresql import JSONB

from farm.database import DELIVERIES_CHANNEL, NEWS_CHANNEL
from farm.models import Event

#: Events are kept so long, and with them what a stream can resume from and a webhook can replay.
KEPT_DAYS = 8


class Kind(StrEnum):
    """Kinds of events: what it happened to, a dot, and what it was."""

    JOB_SUBMITTED = "job.submitted"
    JOB_STARTED = "job.started"
    JOB_PAUSED = "job.paused"
    JOB_RESUMED = "job.resumed"
    JOB_CHANGED = "job.changed"
    """Another priority or another name."""
    JOB_RETRIED = "job.retried"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    """The images that it had not finished are cancelled with it, without events of their own."""
    JOB_DELETED = "job.deleted"
    IMAGE_COMPLETED = "image.completed"
    IMAGE_FAILED = "image.failed"
    WEBHOOK_TEST = "webhook.test"
    """Sent to one webhook on demand; it belongs to no job, and streams do not show it."""


#: What streams and webhooks may be narrowed to.
KINDS = tuple(kind for kind in Kind if kind is not Kind.WEBHOOK_TEST)
#: After one of these a job's stream has nothing more to tell, unless somebody lets it be rendered again.
LAST_KINDS = frozenset({Kind.JOB_COMPLETED, Kind.JOB_FAILED, Kind.JOB_CANCELLED, Kind.JOB_DELETED})


class Announcement(NamedTuple):
    """An event that is about to be written."""

    kind: Kind
    image_index: int | None = None
    details: dict[str, Any] | None = None


class Happened(NamedTuple):
    """An event, as a reader sees it."""

    id: int
    transaction: int
    at: datetime
    kind: str
    job_id: int
    image_index: int | None
    details: dict[str, Any] | None

    @property
    def place(self) -> str:
        """Its place among the farm's events, for a reader who comes back."""
        return f"{self.transaction}.{self.id}"

    def as_json(self) -> dict[str, Any]:
        """The event as streams and webhooks tell of it; addresses are those of the API."""
        told: dict[str, Any] = {"kind": self.kind, "job_id": self.job_id, "at": self.at.isoformat()}
        url = f"/api/v1/jobs/{self.job_id}"
        if self.image_index is not None:
            told["index"] = self.image_index
            url += f"/images/{self.image_index}"
        told["url"] = url
        if self.kind == Kind.IMAGE_COMPLETED:
            told |= {"file_url": f"{url}/file", "thumbnail_url": f"{url}/thumbnail"}
        if self.details is not None:
            told["details"] = self.details
        return told


_ANNOUNCE = text(
    f"""
    WITH made AS (
        INSERT INTO events (kind, job_id, image_index, details)
        SELECT kind, :job_id, image_index, nullif(details, 'null')
        FROM ROWS FROM (unnest(CAST(:kinds AS text[])), unnest(CAST(:indices AS int[])), jsonb_array_elements(:details))
            WITH ORDINALITY AS given (kind, image_index, details, place)
        ORDER BY place
        RETURNING id, kind
    ), sent AS (
        INSERT INTO deliveries (webhook_id, event_id)
        SELECT webhooks.id, made.id
        FROM made
        JOIN webhooks ON made.kind = ANY (webhooks.kinds) AND webhooks.disabled_at IS NULL
        JOIN users ON users.name = webhooks.owner AND users.disabled_at IS NULL
        JOIN jobs ON jobs.id = :job_id
            AND (jobs.owner = webhooks.owner OR webhooks.all_jobs AND users.role IN ('operator', 'admin'))
        RETURNING id
    )
    SELECT pg_notify('{NEWS_CHANNEL}', CAST(:job_id AS text)),
        (SELECT count(pg_notify('{DELIVERIES_CHANNEL}', '')) FROM sent)
    """  # noqa: S608 - the channels' names are ours
).bindparams(bindparam("details", type_=JSONB))


_COLUMNS = "id, transaction, at, kind, job_id, image_index, details"
_OF_KINDS = "(CAST(:kinds AS text[]) IS NULL OR kind = ANY (CAST(:kinds AS text[])))"


def announce(connection: Connection, job_id: int, *announcements: Announcement) -> None:
    """Write events of a job, in the transaction that makes them true; the job's row is locked, and still there."""
    if not announcements:
        return
    connection.execute(
        _ANNOUNCE,
        {
            "job_id": job_id,
            "kinds": [one.kind.value for one in announcements],
            "indices": [one.image_index for one in announcements],
            "details": [one.details for one in announcements],
        },
    )


def job_events(
    engine: Engine, job_id: int, after: int, limit: int, kinds: Sequence[str] | None = None
) -> Sequence[Happened]:
    """Events of a job after the one of this number, in their order; 0 is before all. ``kinds`` are all by default."""
    query = text(
        f"SELECT {_COLUMNS} FROM events WHERE job_id = :job_id AND id > :after AND {_OF_KINDS} ORDER BY id LIMIT :limit"  # noqa: S608
    )
    given = {"job_id": job_id, "after": after, "limit": limit, "kinds": _listed(kinds)}
    with engine.connect() as connection:
        return [Happened(*row) for row in connection.execute(query, given)]


def farm_events(
    engine: Engine, after: tuple[int, int], limit: int, kinds: Sequence[str] | None = None
) -> Sequence[Happened]:
    """Events of all jobs after a place (``transaction``, ``id``), in an order that loses none.

    Those of transactions that are younger than one that still runs come later, in their turn: while a large job is
    being written, all wait for it.
    """
    query = text(
        f"SELECT {_COLUMNS} FROM events WHERE (transaction, id) > (:transaction, :id) "  # noqa: S608
        "AND transaction < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) "
        f"AND job_id IS NOT NULL AND {_OF_KINDS} ORDER BY transaction, id LIMIT :limit"
    )
    given = {"transaction": after[0], "id": after[1], "limit": limit, "kinds": _listed(kinds)}
    with engine.connect() as connection:
        return [Happened(*row) for row in connection.execute(query, given)]


def last_place(engine: Engine) -> tuple[int, int]:
    """The place after all events so far, for a reader who wants only what comes."""
    query = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
    with engine.connect() as connection:
        return connection.execute(query).scalar_one() - 1, 2**63 - 1


def forget_old_events(engine: Engine) -> int:
    """Remove events that are older than ``KEPT_DAYS``, with their deliveries; returns how many."""
    with engine.begin() as connection:
        return connection.execute(delete(Event).where(Event.at < func.now() - timedelta(days=KEPT_DAYS))).rowcount


def _listed(kinds: Sequence[str] | None) -> list[str] | None:
    return None if kinds is None else [str(kind) for kind in kinds]
