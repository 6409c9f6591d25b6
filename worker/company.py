"""Where batches of several jobs meet for a call that they share, each on a thread of its own before and after it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from types import TracebackType
from typing import Generic, TypeVar

from farm.claims import Claim

Member = TypeVar("Member")
Join = Callable[[Member], None]
"""Says that a batch is ready for its call, and returns when the call is over, made or not."""
Accompany = Callable[[Claim, Join[Member]], None]
"""What a courier does with a batch: prepare it, join, and then whatever is to be done with its part."""


class Company(Generic[Member]):
    """The companions of a call: everybody is let go when its context ends."""

    def __init__(self, claims: Sequence[Claim], couriers: Executor, accompany: Accompany[Member]) -> None:
        self._over = threading.Event()
        self._arrivals: list[Future[Member]] = []
        for held in claims:
            arrival: Future[Member] = Future()
            self._arrivals.append(arrival)
            # Who left without joining must not be waited for.
            couriers.submit(accompany, held, self._joiner(arrival)).add_done_callback(_leaver(arrival))

    def __enter__(self) -> "Company[Member]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def joined(self) -> list[Member]:
        """Those that are ready for the call, when all are ready or have left."""
        ready = []
        for arrival in self._arrivals:
            try:
                ready.append(arrival.result())
            except CancelledError:
                continue
        return ready

    def _joiner(self, arrival: "Future[Member]") -> Join[Member]:
        def join(member: Member) -> None:
            arrival.set_result(member)
            self._over.wait()

        return join


def _leaver(arrival: "Future[Member]") -> "Callable[[Future[None]], object]":
    return lambda _: arrival.cancel()
