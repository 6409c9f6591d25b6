"""The way to a farm: one pool of connections, requests that are made again where that is harmless, and clear errors."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from farm import __version__
from farm.errors import FarmError
from farm.record import find_farm, find_token
from producer.client.errors import FarmUnavailableError, FarmUnreachableError, RateLimitedError, error_of

Json = dict[str, Any]
Arguments = Callable[[], dict[str, Any]]
"""Makes a request's arguments anew for every attempt: what is streamed can be read only once."""

#: Uploads and pictures may be large; an answer that does not come at all is noticed by the connection.
TIMEOUT = httpx.Timeout(60, connect=5)
#: A farm that has answered before is given so long to come back: it is being restarted, or its database is.
PATIENCE_SECONDS = 60.0
#: Where nobody ever answered, the address is more likely to be wrong.
FIRST_CONTACT_SECONDS = 2.0
#: What can be asked for again without harm, whatever became of the first request.
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT"})

_back_off = wait_exponential_jitter(multiplier=0.1, max=10, jitter=0.1)


class Connection:
    """A farm at its address, and who asks.

    Requests are made again, with growing pauses or after what ``Retry-After`` says, when the connection fails and after
    429, 502, 503 and 504: those of safe methods and those that carry an idempotency key always, others only if the farm
    did not get them or said that it did nothing.
    """

    def __init__(self, url: str | None, token: str | None, patience_seconds: float) -> None:
        self.url = (url or find_farm()).rstrip("/")
        token = token or find_token(self.url)
        headers = {"User-Agent": f"sdxl-farm/{__version__}"}
        # Redirects to a store on another host go without it: httpx sees to that.
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT, follow_redirects=True, headers=headers)
        self._patience_seconds = patience_seconds
        self._has_answered = False

    async def close(self) -> None:
        """Close all connections."""
        await self.http.aclose()

    async def send(self, method: str, path: str, **arguments: Any) -> Json:
        """The JSON that a request is answered with; raises FarmError. Arguments are those of ``request``."""
        answer: Json = (await self.request(method, path, **arguments)).json()
        return answer

    async def request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = False,
        arguments: Arguments = dict,
        **fixed: Any,
    ) -> httpx.Response:
        """An answer, read to its end; raises FarmError.

        ``repeatable`` says that making the request twice is as good as once; ``arguments`` makes those of httpx that
        can be used only once, ``fixed`` are the others.
        """

        async def attempt() -> httpx.Response:
            async with self._open(method, path, {**fixed, **arguments()}) as response:
                await response.aread()
                return response

        return await self._repeating(attempt, harmless=repeatable or method in REPEATABLE)

    @asynccontextmanager
    async def stream(self, path: str, **arguments: Any) -> AsyncGenerator[httpx.Response]:
        """An answer whose body is read bit by bit. Nothing is repeated; raises FarmError, also from within."""
        async with self._open("GET", path, arguments) as response:
            yield response

    async def _repeating(self, attempt: Callable[[], Any], *, harmless: bool) -> httpx.Response:
        def is_worth_it(error: BaseException) -> bool:
            if isinstance(error, FarmUnreachableError):
                return harmless or not error.was_sent
            return isinstance(error, RateLimitedError) or (harmless and isinstance(error, FarmUnavailableError))

        retrying = AsyncRetrying(
            retry=retry_if_exception(is_worth_it), wait=_pause, stop=self._give_up, sleep=anyio.sleep, reraise=True
        )
        response: httpx.Response = await retrying(attempt)
        return response

    def _give_up(self, state: RetryCallState) -> bool:
        """Whether the next attempt would come too late."""
        known = self._has_answered or not isinstance(_error(state), FarmUnreachableError)
        patience = self._patience_seconds if known else min(FIRST_CONTACT_SECONDS, self._patience_seconds)
        return (state.seconds_since_start or 0) + state.upcoming_sleep > patience

    @asynccontextmanager
    async def _open(self, method: str, path: str, arguments: dict[str, Any]) -> AsyncGenerator[httpx.Response]:
        try:
            async with self.http.stream(method, path, **arguments) as response:
                self._has_answered = True
                if response.is_error:
                    await response.aread()
                    raise error_of(response)
                yield response
        except httpx.TransportError as error:
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise FarmUnreachableError(
                f"No farm answers at {self.url} ({error or type(error).__name__}). "
                "Start one with `farm up`, or set FARM_URL.",
                was_sent=not never_sent,
            ) from error


def _error(state: RetryCallState) -> FarmError | None:
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, FarmError) else None


def _pause(state: RetryCallState) -> float:
    error = _error(state)
    asked = error.retry_after if isinstance(error, RateLimitedError | FarmUnavailableError) else None
    return _back_off(state) if asked is None else asked
