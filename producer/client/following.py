"""News of a job, as they happen: from its stream of events, or by asking again and again where there is none."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import anyio
import httpx
from httpx_sse import EventSource

from farm.errors import FarmError
from producer.client.connection import Connection

#: Between two looks where there are no streams.
POLL_SECONDS = 0.4
#: After so long without a stream it is tried again.
NO_STREAM_SECONDS = 10.0
#: A stream says that it is still there every 15 s.
STREAM_TIMEOUT = httpx.Timeout(45, connect=5)


class News(NamedTuple):
    """Something that happened to a job, under the farm's name for it."""

    kind: str
    image: int | None = None
    """Index of the image that it happened to."""


#: Nobody knows what happened: whoever wants to know has to look.
LOOK = News("look")


async def follow(connection: Connection, job_id: int, kinds: str = "") -> AsyncGenerator[News]:
    """News of a job, LOOK first and whenever some may have been missed. They never end: who follows knows when to stop.

    ``kinds``, with commas between them, are those that are wanted; all without.
    """
    last_id = ""
    parameters = {"kinds": kinds} if kinds else {}
    while True:
        yield LOOK
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            path = f"/api/v1/jobs/{job_id}/events"
            async with connection.stream(path, params=parameters, headers=headers, timeout=STREAM_TIMEOUT) as response:
                async with aclosing(EventSource(response).aiter_sse()) as events:
                    async for event in events:
                        last_id = event.id or last_id
                        yield News(event.event, event.json().get("index") if event.event.startswith("image.") else None)
                await anyio.sleep(POLL_SECONDS)
        except FarmError:
            # All streams are taken, or the farm is away for a moment: whoever looks will see.
            for _ in range(round(NO_STREAM_SECONDS / POLL_SECONDS)):
                await anyio.sleep(POLL_SECONDS)
                yield LOOK
