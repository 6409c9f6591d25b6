"""Notices a device that hangs: a call on it that comes to no further step for too long."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from farm.claims import Claim

LOOK_SECONDS = 0.5


class Watchdog:
    """Calls ``on_hang`` with the claims of a call that made no step for ``seconds``, on a thread of its own.

    It counts its own looks rather than the clock's seconds: a process that stood still as a whole, or a machine that
    slept, did not hang.
    """

    def __init__(self, seconds: float, on_hang: Callable[[Sequence[Claim]], object]) -> None:
        self._most = max(1, round(seconds / LOOK_SECONDS))
        self._on_hang = on_hang
        self._lock = threading.Lock()
        self._claims: Sequence[Claim] = ()
        self._looks = 0

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, claims: Sequence[Claim]) -> Iterator[None]:
        """A call for these claims is on the device for the time of the context."""
        with self._lock:
            self._claims, self._looks = claims, 0
        try:
            yield
        finally:
            with self._lock:
                self._claims = ()

    def step(self) -> None:
        """The call came a step further."""
        with self._lock:
            self._looks = 0

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_SECONDS):
            with self._lock:
                self._looks += 1
                hung = self._claims if self._looks > self._most else ()
            if hung:
                self._on_hang(hung)
                return
