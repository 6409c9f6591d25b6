"""Wakes who waits for a job: one connection of this process listens to what commits tell (``farm.events``).

News are a hint to look, not the truth: a waiter looks into the database itself, and also when there are none for a
while.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy.engine import make_url

from farm.database import NEWS_CHANNEL
from farm.errors import ConfigurationError
from farm.settings import Settings

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

#: Without news a waiter looks this often: the listening connection may be away.
LOOK_SECONDS = 1.0
RECONNECT_SECONDS = 1.0


class News:
    """What this process hears of jobs; nothing is contacted before somebody waits."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._waiting: dict[int | None, set[threading.Event]] = defaultdict(set)
        self._listens = False

    @contextmanager
    def of(self, job_id: int | None) -> Iterator[threading.Event]:
        """An event that is set whenever something happened to the job, or to any if it is None. Clear it, then look."""
        waiter = threading.Event()
        with self._lock:
            self._waiting[job_id].add(waiter)
            if not self._listens:
                self._listens = True
                threading.Thread(target=self._listen, name="news", daemon=True).start()
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiting[job_id].discard(waiter)
                if not self._waiting[job_id]:
                    del self._waiting[job_id]

    def wait_until(self, job_id: int, look: Callable[[], Value | None], go_on: Callable[[], bool]) -> Value | None:
        """What ``look`` returns as soon as that is not None; None once ``go_on`` says no more."""
        with self.of(job_id) as waiter:
            while True:
                waiter.clear()
                if (value := look()) is not None:
                    return value
                if not go_on():
                    return None
                waiter.wait(LOOK_SECONDS)

    def _listen(self) -> None:
        while True:
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {NEWS_CHANNEL}")
                    # What was told while nobody listened is unknown.
                    self._tell_all()
                    for news in connection.notifies():
                        self._tell(int(news.payload))
            except psycopg.OperationalError as error:
                with self._lock:
                    if not self._waiting:
                        # Who waits next listens anew.
                        self._listens = False
                        return
                logger.warning("no news for now: %s", str(error).splitlines()[0])
                threading.Event().wait(RECONNECT_SECONDS)

    def _connect(self) -> psycopg.Connection[Any]:
        if self._settings.database_url is None:
            raise ConfigurationError("No database: set FARM_DATABASE_URL.")
        url = make_url(self._settings.database_url).set(drivername="postgresql")
        return psycopg.connect(
            url.render_as_string(hide_password=False),
            autocommit=True,
            connect_timeout=5,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=2,
            application_name="sdxl-farm news",
        )

    def _tell(self, job_id: int) -> None:
        with self._lock:
            for waiter in (*self._waiting.get(job_id, ()), *self._waiting.get(None, ())):
                waiter.set()

    def _tell_all(self) -> None:
        with self._lock:
            for waiters in self._waiting.values():
                for waiter in waiters:
                    waiter.set()
