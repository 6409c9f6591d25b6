"""Fetches pictures that go in from addresses."""

import asyncio

from farm.errors import AddressRefusedError, InvalidSubmissionError, Problem, UnreachableError
from farm.outside import Answer, ask, read_url
from farm.settings import Settings

FETCH_SECONDS = 30.0


def fetch_picture(url: str, settings: Settings) -> bytes:
    """What lies at the address; whether it is a picture is seen later. Raises InvalidSubmissionError."""
    try:
        answer = asyncio.run(_fetch(url, settings))
    except (AddressRefusedError, UnreachableError) as error:
        raise _refusal(str(error)) from None
    if 300 <= answer.status < 400:
        raise _refusal("leads to another address, which is not followed; give that one")
    if answer.status != 200:
        raise _refusal(f"answered {answer.status}; give the address of the picture itself")
    return answer.body


async def _fetch(url: str, settings: Settings) -> Answer:
    allowed = settings.reachable_hosts
    max_bytes = settings.max_upload_mib * 2**20
    return await ask("GET", read_url(url, allowed), allowed=allowed, seconds=FETCH_SECONDS, max_bytes=max_bytes)


def _refusal(message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem("url", message)])
