"""The device's one thread, and whose turn it is."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import PriorityQueue
from typing import TypeVar

Value = TypeVar("Value")


class Turns:
    """Does one piece of work after another on a thread of its own: what is urgent first, else in the order of asking.

    All of torch's work is done there, loading too. Each thread that computes on a CPU gets a team of OpenMP threads,
    and with two teams OpenMP believes the cores overcommitted: it sleeps where it would spin, some thousand times a
    second, and rendering takes a third longer.
    """

    def __init__(self) -> None:
        self._waiting: PriorityQueue[tuple[bool, int, Callable[[], None]]] = PriorityQueue()
        self._numbers = count()
        threading.Thread(target=self._run, name="device", daemon=True).start()

    def submit(self, work: Callable[[], Value], *, urgent: bool = False) -> "Future[Value]":
        """Have the work done when its turn comes."""
        future: Future[Value] = Future()

        def do() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
                future.set_exception(error)

        self._waiting.put((not urgent, next(self._numbers), do))
        return future

    def _run(self) -> None:
        while True:
            *_, do = self._waiting.get()
            do()
            # While the next is awaited nothing of this one is kept, pictures and tensors among it.
            del do
