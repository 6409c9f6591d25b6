"""Errors as problem documents (RFC 9457)."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Response, json, request

from farm.errors import InvalidSubmissionError, Problem

MEDIA_TYPE = "application/problem+json"
#: Where programs ask that were written for other services' APIs.
OPENAI, WEB_UI = "/v1/", "/sdapi/"
COMPATIBLE = (OPENAI, WEB_UI)


def problem(status: HTTPStatus, detail: str, **members: Any) -> Response:
    """An error answer that says what is wrong."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **members}
    return Response(json.dumps(body), status=status.value, mimetype=MEDIA_TYPE)


def invalid_submission(
    error: InvalidSubmissionError, pointer: Callable[[Problem], str | None] | None = None
) -> Response:
    """Nothing of the submission was accepted; ``errors`` lists why, ``error_count`` how many there are in all.

    ``pointer`` finds the place of a problem in a JSON body.
    """
    errors = []
    for one in error.problems:
        entry = one.as_json()
        if pointer is not None and (place := pointer(one)) is not None:
            entry["pointer"] = place
        errors.append(entry)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.summary(), errors=errors, error_count=error.total)


def wants_problem() -> bool:
    """Whether this request is a program's."""
    return request.path.startswith(("/api/v", *COMPATIBLE)) or request.path in ("/healthz", "/readyz", "/metrics")
