"""Pictures that go in: uploaded once, named by the hash of what is stored of them."""

import threading
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request, url_for
from werkzeug.exceptions import ServiceUnavailable

from dashboard.api.bodies import read_json_object
from dashboard.api.operations import Media, describe
from dashboard.api.schemas.farm import InputBody, InputDocument
from dashboard.context import context
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from producer.fetching import fetch_picture
from producer.inputs import StoredInput, accept_input, find_input

blueprint = Blueprint("api_inputs", __name__)

FILE = Media(
    "multipart/form-data",
    {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}},
)
#: Pictures that are fetched at once: each may take time and memory.
MAX_FETCHES = 4
_fetches = threading.BoundedSemaphore(MAX_FETCHES)


@blueprint.post("/inputs")
@describe("inputs", {201: InputDocument}, body=(InputBody, Media("application/octet-stream"), FILE))
def create() -> tuple[Response, int]:
    """Store a picture: the body, the part ``file`` of a form, or what lies at a ``url``. The same bytes only once."""
    if request.mimetype == "application/json":
        return _accept(_fetched())
    file = request.files.get("file")
    data = request.get_data(cache=False) if file is None else file.read()
    if not data:
        raise InvalidSubmissionError([Problem("file", "is missing; send the picture as the body, or as the part file")])
    return _accept(data)


@blueprint.get("/inputs/<ref>")
@describe("inputs", {200: InputDocument})
def show(ref: str) -> Response:
    """Whether a picture is in the store, by its name or by the SHA-256 of what was sent."""
    farm = context()
    stored = find_input(farm.engine, farm.store, ref)
    if stored is None:
        raise NotFoundError(f"There is no input {ref}.")
    return jsonify(_json(stored))


def _accept(data: bytes) -> tuple[Response, int]:
    farm = context()
    stored = accept_input(farm.engine, farm.store, data)
    return jsonify(_json(stored)), HTTPStatus.CREATED


def _fetched() -> bytes:
    """The picture at the address that the body names. Raises InvalidSubmissionError, ServiceUnavailable."""
    body = read_json_object(InputBody)
    if not isinstance(url := body.pop("url", None), str) or body:
        raise InvalidSubmissionError([Problem("url", 'must be all that the body holds: {"url": "https://..."}')])
    if not _fetches.acquire(blocking=False):
        raise ServiceUnavailable("Too many pictures are being fetched. Try again in a moment.", retry_after=5)
    try:
        return fetch_picture(url, context().settings)
    finally:
        _fetches.release()


def _json(stored: StoredInput) -> dict[str, object]:
    return {
        "input": stored.ref,
        "width": stored.width,
        "height": stored.height,
        "size": stored.size,
        "media_type": stored.media_type,
        "url": url_for("api_inputs.show", ref=stored.ref),
    }
