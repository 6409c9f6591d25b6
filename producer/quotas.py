"""How much may be submitted with an API token: images per day, images that are not finished, images of one job."""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert

from farm.errors import QuotaExceededError
from farm.models import Job, TokenDay

#: First key of the advisory locks under which a token's submissions are counted one after the other ("farq" in ASCII).
_LOCK = 0x66617271
#: When unfinished images are too many, somebody may ask again after this long.
RETRY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of one token; None is no limit."""

    token_id: int
    images_per_day: int | None = None
    concurrent_images: int | None = None
    largest_job: int | None = None


class Usage(NamedTuple):
    """What a token has used up."""

    today: int
    """Images submitted on this day (UTC)."""
    unfinished: int
    """Images of its jobs that have not ended."""
    seconds_of_day: int
    """Until the next day begins."""


def usage(connection: Connection, token_id: int) -> Usage:
    """What was submitted with a token. Days are those of UTC, by the database's clock."""
    now = func.timezone("UTC", func.now())
    today = select(TokenDay.images).where(TokenDay.token_id == token_id, TokenDay.day == func.date(now))
    unfinished = select(func.sum(Job.image_count - Job.images_completed - Job.images_failed)).where(
        Job.token_id == token_id, Job.finished_at.is_(None)
    )
    tomorrow = func.extract("epoch", func.date_trunc("day", now) + text("interval '1 day'") - now)
    row = connection.execute(select(today.scalar_subquery(), unfinished.scalar_subquery(), tomorrow)).one()
    return Usage(int(row[0] or 0), int(row[1] or 0), max(1, int(row[2])))


def require_quota(connection: Connection, quotas: Quotas, images: int) -> None:
    """Raise QuotaExceededError unless so many more images may be submitted now."""
    if quotas.images_per_day is not None or quotas.concurrent_images is not None:
        _refuse_beyond(quotas, usage(connection, quotas.token_id), images)


def count_submission(connection: Connection, quotas: Quotas, images: int) -> None:
    """Count a job's images, last thing in the transaction that wrote it; raises QuotaExceededError if others of the
    token were faster.
    """
    lock = "SELECT pg_advisory_xact_lock(:lock, hashint8(:token))"
    connection.execute(text(lock), {"lock": _LOCK, "token": quotas.token_id})
    used = usage(connection, quotas.token_id)
    _refuse_beyond(quotas, used._replace(unfinished=used.unfinished - images), images)
    today = func.date(func.timezone("UTC", func.now()))
    counted = insert(TokenDay).values(token_id=quotas.token_id, day=today, images=images)
    connection.execute(
        counted.on_conflict_do_update(
            index_elements=["token_id", "day"], set_={"images": TokenDay.images + counted.excluded.images}
        )
    )


def _refuse_beyond(quotas: Quotas, used: Usage, images: int) -> None:
    if quotas.images_per_day is not None and used.today + images > quotas.images_per_day:
        raise QuotaExceededError(
            f"This token may submit {quotas.images_per_day:,} images a day and has submitted {used.today:,} today "
            f"(UTC); {images:,} more would exceed that. Submit fewer, or go on tomorrow.",
            "images-per-day",
            quotas.images_per_day,
            max(0, quotas.images_per_day - used.today),
            used.seconds_of_day,
        )
    if quotas.concurrent_images is not None and used.unfinished + images > quotas.concurrent_images:
        raise QuotaExceededError(
            f"This token may have {quotas.concurrent_images:,} unfinished images and has {used.unfinished:,}; "
            f"{images:,} more would exceed that. Submit fewer, or wait until some are finished.",
            "concurrent-images",
            quotas.concurrent_images,
            max(0, quotas.concurrent_images - used.unfinished),
            RETRY_SECONDS,
        )
