"""Errors in the form that each API's clients read."""

from http import HTTPStatus

from flask import Response, jsonify, request

from dashboard.api.problems import OPENAI, WEB_UI
from farm.errors import FarmError

#: OpenAI's ``type`` and ``code``, where they say more than the status.
_KINDS = {
    HTTPStatus.UNAUTHORIZED: ("invalid_request_error", "invalid_api_key"),
    HTTPStatus.FORBIDDEN: ("permission_error", "insufficient_permissions"),
    HTTPStatus.TOO_MANY_REQUESTS: ("requests", "rate_limit_exceeded"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("server_error", "overloaded"),
    HTTPStatus.GATEWAY_TIMEOUT: ("server_error", "timeout"),
}


class UnfinishedError(FarmError):
    """The pictures that somebody waited for do not come."""

    def __init__(self, message: str, status: HTTPStatus) -> None:
        self.status = status
        super().__init__(message)


class UnknownModelError(FarmError):
    """There is no pipeline of this name."""


class UnprocessablePictureError(FarmError):
    """A picture that goes in is none, or damaged; ``field`` is what it was sent as."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


def openai_error(
    status: HTTPStatus, detail: str, param: str | None = None, code: str | None = None
) -> dict[str, object]:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    kind, usual = _KINDS.get(status, (kind, None))
    return {"error": {"message": detail, "type": kind, "param": param, "code": code or usual}}


def compatible_error(
    status: HTTPStatus, detail: str, field: str | None = None, code: str | None = None
) -> Response | None:
    """The answer in the form of the API that was asked; None if it was the farm's own."""
    if request.path.startswith(OPENAI):
        response = jsonify(openai_error(status, detail, field, code))
    elif request.path.startswith(WEB_UI):
        response = jsonify({"detail": detail})
        if status is HTTPStatus.UNAUTHORIZED:
            # Some clients show their password only when they are asked for it.
            response.headers["WWW-Authenticate"] = 'Basic realm="sdxl-farm"'
    else:
        return None
    response.status_code = status.value
    return response


def refusal_status() -> HTTPStatus:
    """What these APIs answer to a body that is refused."""
    return HTTPStatus.BAD_REQUEST if request.path.startswith(OPENAI) else HTTPStatus.UNPROCESSABLE_ENTITY
