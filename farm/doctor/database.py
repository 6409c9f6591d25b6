"""The database: whether it answers, is new enough, and has the tables of this version."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from farm.addresses import is_reached_by_others
from farm.doctor.findings import Finding, error, first_line, ok, warning

CHECK = "database"
OLDEST = 160000
"""Oldest Postgres that the farm is tested with, as server_version_num counts."""


def check_database(engine: Engine, revisions: Sequence[str]) -> Iterator[Finding]:
    """``revisions`` are those of this version's migrations, the newest first."""
    where = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            number = int(connection.scalar(text("SHOW server_version_num")) or 0)
            driver: Any = connection.connection.driver_connection
            asked, host = driver.pgconn.used_password, driver.info.host
            version = str(connection.scalar(text("SHOW server_version")))
            is_made = connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
            revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if is_made else None
    except SQLAlchemyError as refused:
        reason = first_line(refused.orig if isinstance(refused, DBAPIError) and refused.orig else refused)
        yield error(
            CHECK,
            f"{where} does not let us in: {reason}",
            "Start Postgres, or correct host, name, user and password in FARM_DATABASE_URL.",
        )
        return
    if number < OLDEST:
        yield error(CHECK, f"Postgres is {version}", f"Update it to {OLDEST // 10000} or newer.")
    else:
        yield ok(CHECK, f"Postgres {version} at {where}")
    if not asked and is_reached_by_others(host):
        yield warning(
            CHECK,
            f"{where} lets in everybody who reaches it: no password was asked for",
            "Have pg_hba.conf ask for scram-sha-256 (not trust), and set the password in FARM_DATABASE_URL.",
        )
    if revision is None:
        yield error(CHECK, "it has none of the farm's tables", "Run: farm migrate")
    elif revision == revisions[0]:
        yield ok(CHECK, f"its tables are those of this version (migration {revision})")
    elif revision in revisions:
        yield error(
            CHECK,
            f"its tables are older than this version: migration {revision}, not {revisions[0]}",
            "Run: farm migrate",
        )
    else:
        yield error(
            CHECK,
            f"its tables are newer than this version: migration {revision} is not known here",
            "Update sdxl-farm on this machine.",
        )
