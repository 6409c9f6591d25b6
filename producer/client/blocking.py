"""Runs the async client for programs that are not async: in one thread beside them, so also in a notebook's cells."""

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import anyio.from_thread

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")

_END: Any = object()
#: Items of an iterator that are asked for at once.
PORTION = 100
#: The process's end waits so long for connections to be closed.
CLOSING_SECONDS = 2.0


class _Loop:
    """The thread with the event loop: started with the first call, stopped with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closings: set[asyncio.Task[None]] = set()

    @property
    def portal(self) -> anyio.from_thread.BlockingPortal:
        with self._lock:
            if self._portal is None:
                portal = anyio.from_thread.start_blocking_portal(name="farm-client")
                self._portal = self._stack.enter_context(portal)
                self._loop = self._portal.call(asyncio.get_running_loop)
            return self._portal

    def close_soon(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_closing, close)

    def stop(self) -> None:
        if self._portal is not None:
            self._portal.call(self._end_closing)
            self._portal.call(self._portal.stop, True)
            self._stack.close()

    def _begin_closing(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(close())
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _end_closing(self) -> None:
        if self._closings:
            await asyncio.wait(self._closings, timeout=CLOSING_SECONDS)


_loop = _Loop()
atexit.register(lambda: _loop.stop())  # noqa: PLW0108 - a forked process has another


def _begin_anew() -> None:
    global _loop  # noqa: PLW0603 - the thread is not in a forked process
    _loop = _Loop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def call(
    function: Callable[Parameters, Awaitable[Value]], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Value:
    """The result of an async function; an interrupt of the caller cancels it."""
    return _result(begin(partial(function, *arguments, **named)))


def begin(function: Callable[[], Awaitable[Value]]) -> "Future[Value]":
    """Run an async function beside the caller."""
    return _loop.portal.start_task_soon(function)


def close_soon(close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Close something of the async client's, without waiting for it; for finalizers, which any thread may run."""
    _loop.close_soon(close)


def iterate(items: AsyncGenerator[Value]) -> Iterator[Value]:
    """The items of an async generator, each asked for when it is needed."""
    try:
        while (item := call(anext, items, _END)) is not _END:
            yield item
    finally:
        close_soon(items.aclose)


class Caller:
    """Lets an async function do something in the thread of whoever waits for it: show, or take from an iterator.

    Notebooks show things in the cell whose thread it is, and iterators may hold what belongs to one thread.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    def call(
        self, function: Callable[Parameters, Awaitable[Value]], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Value:
        """The result of the function, whose wishes are fulfilled meanwhile."""
        future = begin(partial(function, *arguments, **named))
        future.add_done_callback(lambda _: self._work.put(None))
        try:
            while (work := self._work.get()) is not None:
                work()
        except BaseException:
            future.cancel()
            raise
        return _result(future)

    def soon(self, function: Callable[[], object]) -> None:
        """Have the caller do this, without waiting for it."""
        self._work.put(function)

    async def items(self, source: Iterable[Value]) -> AsyncIterator[Value]:
        """The items of an iterable of the caller's, some at a time."""
        iterator = iter(source)
        while portion := await self._ask(lambda: [*islice(iterator, PORTION)]):
            for item in portion:
                yield item

    async def _ask(self, function: Callable[[], Value]) -> Value:
        answer: Future[Value] = Future()

        def work() -> None:
            try:
                answer.set_result(function())
            except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
                answer.set_exception(error)

        self._work.put(work)
        return await asyncio.wrap_future(answer)


def _result(future: "Future[Value]") -> Value:
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
