"""The producer service: one leader, any number of standbys, each running the same loop."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from farm.broker import make_celery
from farm.catalog import Catalog
from farm.database import LEADER_LOCK, NOTIFY_CHANNEL, open_database, server_options
from farm.errors import StoreError
from farm.events import forget_old_events
from farm.settings import Settings
from farm.storage import open_store
from producer.dispatch import Dispatcher
from producer.janitor import forget_old_keys, remove_doomed_objects
from producer.minutes import add_up_minutes, forget_old_minutes, record_queues
from producer.reassign import reassign
from producer.recovery import LostMessages, recover_expired_leases
from producer.retention import Rounds
from producer.webhooks import send_deliveries

logger = logging.getLogger(__name__)

#: Pause between two rounds when nobody rings; a submission rings at once.
ROUND_SECONDS = 0.25
RECOVERY_SECONDS = 1.0
STANDBY_SECONDS = 1.0
#: A leader asks several times a second whether it still leads; who has not asked for so long hangs.
HUNG_SECONDS = 15
REASSIGN_SECONDS = 5.0
MINUTE_SECONDS = 60.0
HOUR_SECONDS = 3600.0
#: Pause between two looks for work that is done beside dispatching, when there is none.
BESIDE_SECONDS = 2.0


class Leadership:
    """The lock that only one producer holds, on a connection of its own.

    Postgres frees it when the connection dies, so a dead leader is succeeded without any time-out of ours; one that
    hangs, and asks nothing any more, loses its connection. It may believe that it leads until it asks again: whatever
    it still does is guarded like everything else.
    """

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url).set(drivername="postgresql")
        self._dsn = url.render_as_string(hide_password=False)
        self._connection: psycopg.Connection[Any] | None = None

    def acquire(self) -> bool:
        """Whether this process leads, from now on or still. Raises psycopg.OperationalError without a database."""
        if self._connection is not None:
            self._connection.execute("SELECT 1")
            return True
        connection = psycopg.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=2,
            keepalives_interval=1,
            keepalives_count=2,
            # The server too must notice within seconds that a leader's machine is gone, and give its lock to another.
            options=server_options(
                tcp_keepalives_idle=2,
                tcp_keepalives_interval=1,
                tcp_keepalives_count=2,
                tcp_user_timeout=4_000,
                idle_session_timeout=HUNG_SECONDS * 1000,
            ),
        )
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,)).fetchone()
        if row is None or not row[0]:
            connection.close()
            return False
        connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
        self._connection = connection
        return True

    def wait(self, seconds: float) -> None:
        """Sleep until a submission rings, at most so long."""
        if self._connection is not None:
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass

    def release(self) -> None:
        """Stop leading."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Chores:
    """What the leader does beside dispatching, each at its own pace."""

    def __init__(self, engine: Engine, celery: Celery, settings: Settings, dispatcher: Dispatcher) -> None:
        catalog = Catalog.load(settings.catalog, settings.models_directory)
        lost_messages = LostMessages(engine, celery, settings)
        self._chores: list[tuple[float, Callable[[], object]]] = [
            (RECOVERY_SECONDS, lambda: recover_expired_leases(engine, settings)),
            (RECOVERY_SECONDS, lost_messages.recover),
            (REASSIGN_SECONDS, lambda: reassign(engine, catalog, settings.lease_seconds)),
            (MINUTE_SECONDS, lambda: record_queues(engine, settings.lease_seconds)),
            # In this order: what is forgotten was added up.
            (HOUR_SECONDS, lambda: add_up_minutes(engine)),
            (HOUR_SECONDS, lambda: forget_old_minutes(engine)),
            (HOUR_SECONDS, lambda: forget_old_keys(engine)),
            (HOUR_SECONDS, lambda: forget_old_events(engine)),
            (HOUR_SECONDS, dispatcher.forget),
        ]
        self._due = [0.0] * len(self._chores)

    def do(self) -> None:
        """Do what is due; the first time, everything."""
        now = time.monotonic()
        for place, (pause_seconds, chore) in enumerate(self._chores):
            if now >= self._due[place]:
                chore()
                self._due[place] = now + pause_seconds


def run(settings: Settings, stop: threading.Event) -> None:
    """Lead, or stand by to lead, until ``stop`` is set. Outages are outlived."""
    engine = open_database(settings)
    celery = make_celery(settings)
    database_url = settings.database_url
    assert database_url is not None  # noqa: S101 - open_database has refused None
    leadership = Leadership(database_url)
    leads = threading.Event()
    dispatcher = Dispatcher(engine, celery, settings)
    chores = Chores(engine, celery, settings, dispatcher)
    store = open_store(settings)
    senders = open_database(settings)
    rounds = Rounds(engine)
    beside = [
        _beside(stop, "janitor", lambda: remove_doomed_objects(engine, store)),
        _beside(stop, "retention", lambda: rounds.step() if leads.is_set() else 0),
        _beside(stop, "webhooks", lambda: send_deliveries(senders, database_url, settings.reachable_hosts, stop)),
    ]
    try:
        while not stop.is_set():
            try:
                if not leadership.acquire():
                    stop.wait(STANDBY_SECONDS)
                    continue
                if not leads.is_set():
                    leads.set()
                    logger.info("this producer leads")
                chores.do()
                dispatcher.dispatch()
                leadership.wait(ROUND_SECONDS)
            except (OperationalError, psycopg.OperationalError) as error:
                logger.warning("database away, trying again: %s", str(error).splitlines()[0])
                leadership.release()
                leads.clear()
                stop.wait(STANDBY_SECONDS)
    finally:
        leadership.release()
        stop.set()
        for thread in beside:
            thread.join()
        senders.dispose()
        engine.dispose()
        celery.close()


def _beside(stop: threading.Event, name: str, work: Callable[[], int]) -> threading.Thread:
    """Do something again and again that must not hold up dispatching, in every producer, unless it asks who leads.

    ``work`` returns how much it found to do (or goes on until ``stop`` is set); outages are outlived.
    """

    def loop() -> None:
        while not stop.is_set():
            try:
                if not work():
                    stop.wait(BESIDE_SECONDS)
            except (OperationalError, psycopg.OperationalError, StoreError) as error:
                logger.warning("%s tries again: %s", name, str(error).splitlines()[0])
                stop.wait(BESIDE_SECONDS)

    thread = threading.Thread(target=loop, name=name)
    thread.start()
    return thread
