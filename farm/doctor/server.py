"""What is behind the farm: database, broker, store. Needs the libraries that a client does without."""

from collections.abc import Iterator, Sequence

from sqlalchemy.exc import ArgumentError

from farm.database import open_database
from farm.doctor import database
from farm.doctor.broker import check_broker
from farm.doctor.clock import check_database_clock, check_store_clock
from farm.doctor.findings import Finding, Level, error, first_line
from farm.doctor.state import check_state
from farm.doctor.store import check_store
from farm.settings import Settings


def check_server(settings: Settings, revisions: Sequence[str]) -> Iterator[Finding]:
    """All of it; what has no address is passed by."""
    if settings.broker_url is not None:
        yield from check_broker(settings.broker_url)
    # What `farm up` is yet to make would be made by looking.
    if settings.store_url is not None or settings.data.exists():
        yield from check_store(settings)
    if settings.effective_store_url.startswith("s3:"):
        yield from check_store_clock(settings)
    if settings.database_url is not None:
        yield from _check_database(settings, revisions)


def _check_database(settings: Settings, revisions: Sequence[str]) -> Iterator[Finding]:
    try:
        engine = open_database(settings)
    except (ArgumentError, ValueError) as refused:
        yield error(
            database.CHECK,
            f"FARM_DATABASE_URL cannot be read: {first_line(refused)}",
            "Write it as postgresql://user:password@host/name.",
        )
        return
    try:
        works = True
        for finding in database.check_database(engine, revisions):
            works = works and finding.level is not Level.ERROR
            yield finding
        if works:
            yield from check_database_clock(engine)
            yield from check_state(engine, settings.lease_seconds)
    finally:
        engine.dispose()
