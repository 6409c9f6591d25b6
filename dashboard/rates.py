"""How many requests a minute an API token may make, counted in the broker for all dashboards together.

While the broker is away nobody is counted: the database still guards what matters.
"""

import logging
import math
import time
from functools import cache
from typing import TYPE_CHECKING

import redis
from flask import Response, g
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from werkzeug.exceptions import TooManyRequests

from dashboard.context import context

if TYPE_CHECKING:
    from farm.people import Token

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 60


def count_request(token: "Token") -> None:
    """Count a request of this token; raises TooManyRequests beyond its limit. The answer tells what is left."""
    settings = context().settings
    limit = (token.limits | settings.token_limits).requests_per_minute
    url = settings.broker_url
    if limit is None or url is None:
        return
    limiter, item = _limiter(url), RateLimitItemPerMinute(limit)
    try:
        allowed = limiter.hit(item, "token", str(token.id))
        left = limiter.get_window_stats(item, "token", str(token.id))
    except redis.RedisError as error:
        logger.warning("broker away, requests are not counted: %s", error)
        return
    wait = max(1, math.ceil(left.reset_time - time.time()))
    note_limit("requests", limit, WINDOW_SECONDS, left.remaining, wait)
    if not allowed:
        raise TooManyRequests(
            f"This token may make {limit} requests a minute. Try again in {wait} s.", retry_after=wait
        )


def note_limit(name: str, limit: int, window_seconds: int | None, remaining: int, reset_seconds: int) -> None:
    """Let the answer tell of a limit, in the headers of draft-ietf-httpapi-ratelimit-headers."""
    window = "" if window_seconds is None else f";w={window_seconds}"
    g.setdefault("limits", {})[name] = (f'"{name}";q={limit}{window}', f'"{name}";r={remaining};t={reset_seconds}')


def add_headers(response: Response) -> Response:
    """The headers of what ``note_limit`` was told."""
    if noted := g.get("limits"):
        response.headers["RateLimit-Policy"] = ", ".join(policy for policy, _ in noted.values())
        response.headers["RateLimit"] = ", ".join(left for _, left in noted.values())
    return response


@cache
def _limiter(url: str) -> SlidingWindowCounterRateLimiter:
    storage = RedisStorage(url, key_prefix="farm:rates", socket_timeout=1, socket_connect_timeout=1)
    return SlidingWindowCounterRateLimiter(storage)
