"""Errors as problem documents (RFC 9457)."""

from http import HTTPStatus
from typing import Any

from flask import Response, json, request

from farm.errors import InvalidSubmissionError, NotFoundError

MEDIA_TYPE = "application/problem+json"


def problem(status: HTTPStatus, detail: str, **members: Any) -> Response:
    """An error answer that says what is wrong."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **members}
    return Response(json.dumps(body), status=status.value, mimetype=MEDIA_TYPE)


def not_found(error: NotFoundError) -> Response:
    """The named thing does not exist."""
    return problem(HTTPStatus.NOT_FOUND, str(error))


def invalid_submission(error: InvalidSubmissionError) -> Response:
    """Nothing of the submission was accepted; ``errors`` lists why, ``error_count`` how many there are in all."""
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        error.summary(),
        errors=[one.as_json() for one in error.problems],
        error_count=error.total,
    )


def wants_problem() -> bool:
    """Whether this request is a program's."""
    return request.path.startswith("/api/") or request.path in ("/healthz", "/readyz")
