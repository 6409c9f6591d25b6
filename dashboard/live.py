"""Server-sent events: pages and programs that stay up to date without asking.

A page's stream looks once a second and sends what changed. However many look at the same thing, it is computed once a
second: streams share what they see (``Shared``). A program's stream is also woken by news. Each stream holds a thread
of the server, so their number is limited; who comes too late is told so, and its page asks every few seconds instead.
"""

import threading
import time
from collections.abc import Callable, Generator, Hashable
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any, TypeVar, cast

from flask import Response, request, stream_with_context

Value = TypeVar("Value")

INTERVAL_SECONDS = 1.0
#: Between two looks of a stream that is woken by news: what happens meanwhile is told together.
NEWS_SECONDS = 0.02
#: What nobody asked for during this time is forgotten.
FORGET_SECONDS = 60.0
#: Proxies close what is silent; and a page that is gone is noticed at the latest when something is sent.
KEEP_ALIVE_SECONDS = 15.0
#: A stream ends after this long, and its page comes back at once: it is asked again who it is.
STREAM_SECONDS = 600.0
#: Of the server's threads (``dashboard.server.THREADS``), so many may be held by streams.
MAX_STREAMS = 40

_places = threading.BoundedSemaphore(MAX_STREAMS)
_stopping = threading.Event()

Event = tuple[str, str, str]
"""Its name, its id (what a reconnecting browser tells us; empty if it is not to be resumed from) and its data."""


class Shared:
    """Values by key, each computed at most once in a while, whoever asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._values: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, compute: Callable[[Value | None], Value], seconds: float = INTERVAL_SECONDS) -> Value:
        """The value of ``key``; if it is older than so many seconds, ``compute`` makes it anew, from the one before."""
        with self._lock:
            self._forget()
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            known = self._values.get(key)
            if known is not None and time.monotonic() - known[0] < seconds:
                return cast("Value", known[1])
            value = compute(known[1] if known else None)
            self._values[key] = (time.monotonic(), value)
            return value

    def _forget(self) -> None:
        oldest = time.monotonic() - FORGET_SECONDS
        for key in [key for key, (computed, _) in self._values.items() if computed < oldest]:
            del self._values[key]
            self._locks.pop(key, None)


def stop_streams() -> None:
    """End all streams of this process, so that it can stop; browsers come back by themselves."""
    _stopping.set()


def is_stopping() -> bool:
    """Whether this process is about to stop: who waits for something goes without it."""
    return _stopping.is_set()


def stream(
    look: Callable[[], tuple[list[Event], bool]], news: AbstractContextManager[threading.Event] | None = None
) -> Response:
    """Answer with the events that ``look`` returns once a second, until it says that there is nothing more to come.

    With ``news`` (what ``News.of`` gives) it also looks whenever there are some, and until it has found all.
    """
    if not _places.acquire(blocking=False):
        return Response(
            "Too many pages are live at once; this one asks by itself.\n",
            HTTPStatus.SERVICE_UNAVAILABLE,
            {"Retry-After": "30"},
            "text/plain",
        )
    is_gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    response = Response(stream_with_context(_events(look, news, is_gone)), mimetype="text/event-stream")
    response.call_on_close(_places.release)
    response.headers["Cache-Control"] = "no-store"
    # nginx would collect the events, and send them in large portions.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _events(
    look: Callable[[], tuple[list[Event], bool]],
    news: AbstractContextManager[threading.Event] | None,
    is_gone: Callable[[], bool],
) -> Generator[str]:
    yield "retry: 2000\n\n"
    begun = spoken = time.monotonic()
    with news or nullcontext() as bell:
        pause = INTERVAL_SECONDS
        while time.monotonic() - begun < STREAM_SECONDS:
            if bell is not None:
                bell.clear()
            events, ended = look()
            for name, number, data in events:
                lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
                place = f"id: {number}\n" if number else ""
                yield f"event: {name}\n{place}{lines}\n"
            if ended:
                yield "event: end\ndata:\n\n"
                return
            if events:
                spoken = time.monotonic()
            elif time.monotonic() - spoken > KEEP_ALIVE_SECONDS:
                spoken = time.monotonic()
                yield ": still here\n\n"
            if bell is None:
                _stopping.wait(INTERVAL_SECONDS)
            elif events:
                pause = NEWS_SECONDS
                _stopping.wait(pause)
            elif bell.wait(pause):
                # What the news are of may show up only when another transaction has ended: then it looks soon again.
                pause = NEWS_SECONDS
            else:
                pause = min(2 * pause, INTERVAL_SECONDS)
            if _stopping.is_set() or is_gone():
                return
