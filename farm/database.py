"""Connections to Postgres."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, func, text
from sqlalchemy.engine import make_url
from sqlalchemy.sql.elements import ColumnElement

from farm.errors import ConfigurationError
from farm.settings import Settings

#: Key of the advisory lock that the leading producer holds ("farm" in ASCII).
LEADER_LOCK = 0x6661726D
#: Channel on which the producer service hears that there is something to dispatch.
NOTIFY_CHANNEL = "farm_jobs"
#: Channel on which all who wait for a job hear that something happened to it; the payload is its number.
NEWS_CHANNEL = "farm_news"
#: Channel on which senders of webhooks hear that there is something to deliver.
DELIVERIES_CHANNEL = "farm_deliveries"


def server_options(**options: int | str) -> str:
    """What a connection asks of the server, as libpq takes it; in the units that Postgres has for each."""
    return " ".join(f"-c {name}={value}" for name, value in options.items())


#: A machine that vanishes in the middle of a transaction must not hold its locks: the server looks after its clients
#: only every two hours unless it is asked for more.
_SERVER_OPTIONS = server_options(
    idle_in_transaction_session_timeout=15_000,
    tcp_keepalives_idle=10,
    tcp_keepalives_interval=5,
    tcp_keepalives_count=3,
    tcp_user_timeout=25_000,
    # After five executions Postgres may settle on one plan for any values, made when a table was empty or a job small.
    plan_cache_mode="force_custom_plan",
)


def open_database(settings: Settings, pool_size: int = 5) -> Engine:
    """An engine on the farm's database; nothing is contacted yet.

    Connections are tested before use, so that a restart of Postgres costs a retry and not an error. Dead peers are
    noticed within half a minute, on both sides; a transaction whose client says nothing for 15 s is rolled back.
    """
    if settings.database_url is None:
        raise ConfigurationError(
            "No database: set FARM_DATABASE_URL (postgresql://...), or start the embedded farm with `farm up`."
        )
    url = make_url(settings.database_url).set(drivername="postgresql+psycopg")
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            "options": _SERVER_OPTIONS,
            "application_name": "sdxl-farm",
        },
    )


def wake_producer(connection: Connection) -> None:
    """Let the producer service look for work as soon as this transaction commits."""
    connection.execute(text(f"NOTIFY {NOTIFY_CHANNEL}"))


def sought(words: str) -> str:
    """Words from outside as a query may compare them.

    Postgres holds no NUL, and refuses to look for one: words with it are made to equal nothing.
    """
    return words.replace("\0", "\N{REPLACEMENT CHARACTER}")


def seconds_from_now(seconds: float) -> ColumnElement[Any]:
    """A time by the database's clock, the only one that all parts share."""
    return func.now() + timedelta(seconds=seconds)
