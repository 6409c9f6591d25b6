"""The broker: whether it answers, is new enough, and keeps what it is given."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import redis

from farm.addresses import is_reached_by_others
from farm.doctor.findings import Finding, error, first_line, ok, warning

CHECK = "broker"
OLDEST = (6, 2)
ANSWER_SECONDS = 5.0


def check_broker(url: str) -> Iterator[Finding]:
    """Of a Redis or Valkey at this address."""
    where = _without_password(url)
    try:
        with redis.Redis.from_url(url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS) as client:
            told = client.info()
    except (redis.RedisError, ValueError) as refused:
        yield error(
            CHECK,
            f"{where} does not let us in: {first_line(refused)}",
            "Start Redis or Valkey, or correct host, port and password in FARM_BROKER_URL (redis://host:6379/0).",
        )
        return
    name = "Valkey" if "valkey_version" in told else "Redis"
    version = str(told.get("valkey_version") or told.get("redis_version"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        yield error(CHECK, f"{name} is {version}", f"Update it to {'.'.join(map(str, OLDEST))} or newer.")
    else:
        yield ok(CHECK, f"{name} {version} at {where}")
    if urlsplit(url).password is None and is_reached_by_others(urlsplit(url).hostname):
        yield warning(
            CHECK,
            f"{where} lets in everybody who reaches it: no password was asked for",
            "Set requirepass in its configuration, and the password in FARM_BROKER_URL (redis://:PASSWORD@host:6379/0).",
        )
    if (policy := told.get("maxmemory_policy", "noeviction")) != "noeviction":
        yield warning(
            CHECK,
            f"it drops what it holds when its memory is full (maxmemory-policy {policy}): batches then wait until "
            f"they are sent again",
            "Set maxmemory-policy to noeviction in its configuration, or run: "
            "redis-cli CONFIG SET maxmemory-policy noeviction",
        )


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
