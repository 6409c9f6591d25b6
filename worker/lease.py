"""Leases: the right to render a batch, renewed by one heartbeat thread per worker process.

The heartbeat is the one channel back: renewing brings home whether the batch is still wished for, and the step
callback asks the lease at every denoising step.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from farm.claims import Answer, Claim, Vitals, Wish, renew
from farm.errors import RenderInterrupted
from farm.settings import Settings

logger = logging.getLogger(__name__)


class Lease:
    """A held claim, and what the last heartbeat said of it."""

    def __init__(self, claim: Claim, lease_seconds: float) -> None:
        self.claim = claim
        self.wish = Wish.GO_ON
        self._lease_seconds = lease_seconds
        self._runs_out = time.monotonic() + lease_seconds

    def renewed(self, asked_at: float) -> None:
        """The database renewed the lease; it counts from before we asked, so that ours never outlasts theirs."""
        self._runs_out = asked_at + self._lease_seconds

    def stands(self) -> bool:
        """Whether the batch may be rendered on."""
        if self.wish is Wish.GO_ON and time.monotonic() > self._runs_out:
            # No heartbeat got through: somebody else may hold the batch by now.
            self.wish = Wish.LOST
        return self.wish is Wish.GO_ON

    def check(self) -> None:
        """Raise RenderInterrupted unless the batch may be rendered on."""
        if not self.stands():
            raise RenderInterrupted(f"batch {self.claim.batch_id} attempt {self.claim.attempt}: {self.wish.value}")


class LeaseKeeper:
    """Renews all leases of this process, and with them the sign that the worker lives.

    ``read_vitals`` tells how the device is; ``on_answer`` is given what each heartbeat brings back.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        worker_id: str,
        read_vitals: Callable[[], Vitals] = Vitals,
        on_answer: Callable[[Answer], None] = lambda _answer: None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._worker_id = worker_id
        self._read_vitals = read_vitals
        self._on_answer = on_answer
        self._held: dict[tuple[int, int], Lease] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating; leases still held will run out."""
        self._stop.set()
        self._thread.join()

    @contextmanager
    def hold(self, claim: Claim) -> Iterator[Lease]:
        """Keep the lease of a claim for the time of the context."""
        key = (claim.batch_id, claim.attempt)
        lease = Lease(claim, self._settings.lease_seconds)
        with self._lock:
            self._held[key] = lease
        try:
            yield lease
        finally:
            with self._lock:
                del self._held[key]

    def claims(self) -> list[Claim]:
        """Whatever is held now."""
        with self._lock:
            return [lease.claim for lease in self._held.values()]

    def beat(self) -> None:
        """One heartbeat: renew everything held, and pass on what is wished."""
        with self._lock:
            held = dict(self._held)
        asked_at = time.monotonic()
        answer = renew(self._engine, self._worker_id, list(held), self._settings.lease_seconds, self._read_vitals())
        for key, wish in answer.wishes.items():
            held[key].wish = wish
            if wish is Wish.GO_ON:
                held[key].renewed(asked_at)
        self._on_answer(answer)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.heartbeat_seconds):
            try:
                self.beat()
            except SQLAlchemyError as error:
                logger.warning("heartbeat did not reach the database: %s", str(error).splitlines()[0])
