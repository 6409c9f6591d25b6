"""What may go wrong between a program and its farm. Everything is a FarmError, and says what to do next.

Of ``farm.errors``: InvalidSubmissionError (422, with its problems), NotFoundError (404), ConflictError (409).
"""

from http import HTTPStatus
from typing import Any

import httpx

from farm.errors import ConflictError, FarmError, InvalidSubmissionError, NotFoundError, Problem

LOGGED_OUT = "This farm wants to know who you are: make an API token on its page Account, and set FARM_TOKEN."


class FarmUnreachableError(FarmError):
    """No farm answers at the address, or the connection broke."""

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        self.was_sent = was_sent
        """Whether the farm may have got the request all the same."""
        super().__init__(message)


class FarmRefusedError(FarmError):
    """The farm answered with an error other than about the content of what was sent."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"{detail} (HTTP {status})")


class NotLoggedInError(FarmRefusedError):
    """No API token was shown, or none that the farm knows."""


class NotAllowedError(FarmRefusedError):
    """The token's user may not do this."""


class RateLimitedError(FarmRefusedError):
    """Too much in too little time, or a quota is used up; after ``retry_after`` seconds there is room again."""

    def __init__(self, status: int, detail: str, retry_after: float | None) -> None:
        self.retry_after = retry_after
        super().__init__(status, detail)


class FarmUnavailableError(FarmRefusedError):
    """The farm, or what it stands on, is away for the moment: 502, 503 or 504."""

    def __init__(self, status: int, detail: str, retry_after: float | None) -> None:
        self.retry_after = retry_after
        super().__init__(status, detail)


class NoPictureError(FarmError):
    """An image that has no picture, or not of the kind that is asked for."""


class MissingPackageError(FarmError, ImportError):
    """Something needs a package that the client does without otherwise."""


def error_of(response: httpx.Response) -> FarmError:
    """The error that an answer stands for; its body was read."""
    status, document = response.status_code, _document(response)
    detail = str(document.get("detail") or document.get("title") or response.reason_phrase)
    retry_after = _seconds(response.headers.get("Retry-After"))
    match status:
        case HTTPStatus.UNPROCESSABLE_ENTITY if isinstance(document.get("errors"), list):
            return InvalidSubmissionError(
                [_problem(entry) for entry in document["errors"]], document.get("error_count")
            )
        case HTTPStatus.UNAUTHORIZED:
            return NotLoggedInError(status, LOGGED_OUT)
        case HTTPStatus.FORBIDDEN:
            return NotAllowedError(status, detail)
        case HTTPStatus.NOT_FOUND:
            return NotFoundError(detail)
        case HTTPStatus.CONFLICT:
            return ConflictError(detail)
        case HTTPStatus.TOO_MANY_REQUESTS:
            return RateLimitedError(status, detail, retry_after)
        case HTTPStatus.BAD_GATEWAY | HTTPStatus.SERVICE_UNAVAILABLE | HTTPStatus.GATEWAY_TIMEOUT:
            return FarmUnavailableError(status, detail, retry_after)
    return FarmRefusedError(status, detail)


def _document(response: httpx.Response) -> dict[str, Any]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _problem(entry: dict[str, Any]) -> Problem:
    return Problem(entry["field"], entry["message"], entry.get("line"), entry.get("pointer"))


def _seconds(header: str | None) -> float | None:
    """Of Retry-After, as the farm writes it; a date is left to the client's own back-off."""
    return float(header) if header is not None and header.isdecimal() else None
