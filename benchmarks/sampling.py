"""Figures that are read again and again while something runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sampled(read: Callable[[], float | None], seconds: float) -> Iterator[list[float]]:
    """What ``read`` says every so many seconds, on a thread beside, until the context ends; None is left out."""
    found: list[float] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            value = read()
            if value is not None:
                found.append(value)

    thread = threading.Thread(target=run, name="samples")
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
