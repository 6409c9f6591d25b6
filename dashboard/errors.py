"""Turns errors into answers: problem documents for programs, pages for people."""

import logging
from http import HTTPStatus

from flask import Flask, g, render_template, request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from dashboard.api.problems import COMPATIBLE, invalid_submission, problem, wants_problem
from dashboard.compatible.errors import (
    UnfinishedError,
    UnknownModelError,
    UnprocessablePictureError,
    compatible_error,
    refusal_status,
)
from dashboard.context import context
from dashboard.rates import note_limit
from farm.errors import (
    ConflictError,
    InvalidSubmissionError,
    NotFoundError,
    ObjectMissingError,
    QuotaExceededError,
    StoreError,
)

logger = logging.getLogger(__name__)

#: The problem type of the same draft that the rate limits' headers come from.
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
#: Headers that an error page of ours sets itself.
_OWN_HEADERS = frozenset({"content-type", "content-length"})


def register_errors(app: Flask) -> None:
    """Add the handlers of all errors that a request may end with."""
    app.register_error_handler(InvalidSubmissionError, _refused)
    app.register_error_handler(NotFoundError, _missing)
    app.register_error_handler(ObjectMissingError, _missing)
    app.register_error_handler(ConflictError, _conflict)
    app.register_error_handler(QuotaExceededError, _quota_exceeded)
    app.register_error_handler(UnknownModelError, _unknown_model)
    app.register_error_handler(UnprocessablePictureError, _unprocessable)
    app.register_error_handler(UnfinishedError, _unfinished)
    app.register_error_handler(StoreError, _store_away)
    for kind in (OperationalError, InterfaceError, PoolTimeoutError):
        app.register_error_handler(kind, _database_away)
    app.register_error_handler(HTTPException, _http_error)


def _answer(status: HTTPStatus, detail: str, field: str | None = None, code: str | None = None) -> Response:
    if (response := compatible_error(status, detail, field, code)) is not None:
        return response
    if wants_problem():
        return problem(status, detail)
    page = render_template("error.html", status=status.value, title=status.phrase, detail=detail)
    # Problems may quote what was sent, and not all of that can be encoded.
    return Response(page.encode("utf-8", "replace"), status.value, mimetype="text/html")


def _refused(error: InvalidSubmissionError) -> Response:
    if request.path.startswith(COMPATIBLE):
        return _answer(refusal_status(), error.summary(), error.problems[0].field)
    if wants_problem():
        return invalid_submission(error, g.get("pointer"))
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, error.summary())


def _missing(error: NotFoundError | ObjectMissingError) -> Response:
    return _answer(HTTPStatus.NOT_FOUND, str(error))


def _conflict(error: ConflictError) -> Response:
    return _answer(HTTPStatus.CONFLICT, str(error))


def _quota_exceeded(error: QuotaExceededError) -> Response:
    note_limit(error.quota, error.limit, None, error.remaining, error.reset_seconds)
    if wants_problem() and not request.path.startswith(COMPATIBLE):
        members = {"type": QUOTA_EXCEEDED, "violated-policies": [error.quota]}
        response: Response = problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), **members)
    else:
        response = _answer(HTTPStatus.TOO_MANY_REQUESTS, str(error), code="insufficient_quota")
    response.headers["Retry-After"] = str(error.reset_seconds)
    return response


def _unknown_model(error: UnknownModelError) -> Response:
    return _answer(HTTPStatus.NOT_FOUND, str(error), "model", "model_not_found")


def _unprocessable(error: UnprocessablePictureError) -> Response:
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), error.field, "invalid_image_file")


def _unfinished(error: UnfinishedError) -> Response:
    response = _answer(error.status, str(error))
    if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    else:
        # The farm has tried it several times: OpenAI's client need not, too.
        response.headers["x-should-retry"] = "false"
    return response


def _store_away(error: StoreError) -> Response:
    logger.error("%s", error)
    return _answer(HTTPStatus.BAD_GATEWAY, "The object store does not answer. Try again in a moment.")


def _database_away(error: Exception) -> Response:
    logger.error("the database does not answer: %s", error)
    response = _answer(HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer. Try again in a moment.")
    response.headers["Retry-After"] = "5"
    return response


def _http_error(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = error.description or status.phrase
    if status is HTTPStatus.NOT_FOUND:
        detail = "There is nothing at this address."
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = context().settings.max_upload_mib
        detail = f"The upload exceeds the {limit} MiB that this farm accepts (FARM_MAX_UPLOAD_MIB)."
    response = _answer(status, detail)
    for name, value in error.get_headers():
        # 405 says here what is allowed.
        if name.lower() not in _OWN_HEADERS:
            response.headers[name] = value
    return response
