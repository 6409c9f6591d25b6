"""The device's one thread, and whose turn it is."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

Value = TypeVar("Value")


class Turns:
    """Does one piece of work after another on a thread of its own: what is urgent first, else in the order of asking.

    All of torch's work is done there, loading too. Each thread that computes on a CPU gets a team of OpenMP threads,
    and with two teams OpenMP believes the cores overcommitted: it sleeps where it would spin, some thousand times a
    second, and rendering takes a third longer.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[bool, int, Callable[[], None]]] = []
        self._numbers = count()
        self._holding = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="device", daemon=True).start()

    def submit(self, work: Callable[[], Value], *, urgent: bool = False) -> "Future[Value]":
        """Have the work done when its turn comes."""
        future: Future[Value] = Future()
        # What is logged there is about what is asked for here.
        context = copy_context()

        def do() -> None:
            try:
                future.set_result(context.run(work))
            except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
                future.set_exception(error)

        with self._changed:
            heappush(self._waiting, (not urgent, next(self._numbers), do))
            self._changed.notify()
        return future

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing begins in this context but what is urgent: more of it is to come in a moment."""
        with self._changed:
            self._holding += 1
        try:
            yield
        finally:
            with self._changed:
                self._holding -= 1
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_begin)
                *_, do = heappop(self._waiting)
            do()
            # While the next is awaited nothing of this one is kept, pictures and tensors among it.
            del do

    def _may_begin(self) -> bool:
        if not self._waiting:
            return False
        is_bulk = self._waiting[0][0]
        return not (is_bulk and self._holding)
