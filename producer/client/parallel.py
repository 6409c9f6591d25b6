"""Many things at once, but not all of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio

Item = TypeVar("Item")


async def each(items: AsyncIterator[Item], work: Callable[[Item], Awaitable[None]], parallel: int) -> None:
    """Do the work for each of the items, so many at once. The first error ends all and is raised."""
    places = anyio.Semaphore(parallel)

    async def do(item: Item) -> None:
        try:
            await work(item)
        finally:
            places.release()

    try:
        async with anyio.create_task_group() as group:
            async for item in items:
                await places.acquire()
                group.start_soon(do, item)
    except ExceptionGroup as errors:
        raise _first(errors) from None


def _first(error: Exception) -> Exception:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
