"""Slows down who guesses passwords: so many wrong ones for a name, or from an address, and everybody waits.

Counted in the broker, which forgets by itself. While it is away nobody is counted: a farm whose broker is down must
still let its operators in.
"""

import ipaddress

import redis
from flask import request
from werkzeug.exceptions import TooManyRequests

from dashboard.context import context
from farm.storage import sha256

MAX_FAILURES = 10
WINDOW_SECONDS = 300
#: Somebody with one line of IPv6 has a whole network of so many bits in common to come from.
IPV6_PREFIX = 64


def count_attempt(name: str) -> None:
    """Count a log-in as a failure until it succeeds; raises TooManyRequests beyond the limit.

    Counted first and checked then, so that a thousand guesses at once are not all the first.
    """
    wait = 0
    try:
        # Both counts in one transaction: two attempts that count in turns would each be the other's last straw.
        with _broker() as broker, broker.pipeline() as together:
            for key in _keys(name):
                together.incr(key)
                together.expire(key, WINDOW_SECONDS, nx=True)
                together.ttl(key)
            answers = together.execute()
        for count, seconds in zip(answers[::3], answers[2::3], strict=True):
            if count > MAX_FAILURES:
                wait = max(wait, seconds, 1)
    except redis.RedisError:
        return
    if wait:
        raise TooManyRequests(
            f"There were {MAX_FAILURES} wrong log-ins for this name or from your address. Try again in "
            f"{-(-wait // 60)} min, or ask an administrator for a link that logs you in.",
            retry_after=wait,
        )


def forgive(name: str) -> None:
    """Take back what ``count_attempt`` counted: the password was right.

    The address only gets this one attempt back: who has an account must not try those of others without end.
    """
    of_name, of_address = _keys(name)
    try:
        with _broker() as broker, broker.pipeline() as together:
            together.delete(of_name)
            together.decr(of_address)
            together.execute()
    except redis.RedisError:
        return


def _broker() -> redis.Redis:
    # Log-ins are rare: a connection of its own each time costs less than keeping one.
    url = context().settings.broker_url or ""
    return redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)


def _keys(name: str) -> tuple[str, str]:
    return f"farm:refused:name:{sha256(name.encode('utf-8', 'replace'))}", f"farm:refused:address:{_network()}"


def _network() -> str:
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)
