"""Clocks: leases and times are the database's, signatures of S3 requests are refused when clocks differ by minutes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from sqlalchemy import Engine, func, select

from farm.doctor.findings import Finding, error, first_line, ok, warning
from farm.settings import Settings

CHECK = "clock"
WARN_SECONDS = 2.0
ERROR_SECONDS = 30.0
ANSWER_SECONDS = 5.0
AMAZON = "https://s3.amazonaws.com"


def check_database_clock(engine: Engine) -> Iterator[Finding]:
    """This machine against Postgres."""
    with engine.connect() as connection:
        connection.execute(select(1))
        before = _now()
        theirs = connection.execute(select(func.clock_timestamp())).scalar_one()
    yield difference("Postgres", theirs, before, _now())


def check_store_clock(settings: Settings) -> Iterator[Finding]:
    """This machine against the S3 server, by what it says in each answer, refusals too."""
    address = settings.s3_endpoint_url or AMAZON
    before = _now()
    try:
        answer = httpx.head(address, timeout=ANSWER_SECONDS)
        # It says whole seconds, cut off.
        theirs = parsedate_to_datetime(answer.headers["Date"]) + timedelta(seconds=0.5)
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError) as failed:
        reason = "it says no Date" if isinstance(failed, KeyError) else first_line(failed)
        yield warning(
            CHECK,
            f"the clock of {address} cannot be read ({reason})",
            "Correct FARM_S3_ENDPOINT_URL, or start the S3 server.",
        )
        return
    yield difference(f"the S3 server {address}", theirs, before, _now())


def difference(whose: str, theirs: datetime, before: datetime, after: datetime) -> Finding:
    """What it means that a clock showed ``theirs`` between two looks at ours."""
    ours = before + (after - before) / 2
    seconds = (theirs - ours).total_seconds()
    # Half the time that the answer took may be on either way.
    certain = max(0.0, abs(seconds) - (after - before).total_seconds() / 2)
    direction = "behind" if seconds > 0 else "ahead of"
    if certain <= WARN_SECONDS:
        return ok(CHECK, f"this machine and {whose} agree within {WARN_SECONDS:g} s")
    make = error if certain > ERROR_SECONDS else warning
    return make(
        CHECK,
        f"this machine is {abs(seconds):.0f} s {direction} {whose}",
        "Let both follow one time server (timedatectl set-ntp true).",
    )


def _now() -> datetime:
    return datetime.now(UTC)
