"""Pictures that go in: uploaded once, named by the hash of their bytes."""

from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request, url_for

from dashboard.context import context
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from producer.inputs import StoredInput, accept_input, find_input

blueprint = Blueprint("api_inputs", __name__)


@blueprint.post("/inputs")
def create() -> tuple[Response, int]:
    """Upload a picture: the body itself, or the part ``file`` of a form. The same bytes are stored once."""
    file = request.files.get("file")
    data = request.get_data(cache=False) if file is None else file.read()
    if not data:
        raise InvalidSubmissionError([Problem("file", "is missing; send the picture as the body, or as the part file")])
    farm = context()
    stored = accept_input(farm.engine, farm.store, data)
    return jsonify(_json(stored)), HTTPStatus.CREATED


@blueprint.get("/inputs/<ref>")
def show(ref: str) -> Response:
    """Whether a picture is in the store."""
    stored = find_input(context().engine, ref)
    if stored is None:
        raise NotFoundError(f"There is no input {ref}.")
    return jsonify(_json(stored))


def _json(stored: StoredInput) -> dict[str, object]:
    return {
        "input": stored.ref,
        "width": stored.width,
        "height": stored.height,
        "size": stored.size,
        "media_type": stored.media_type,
        "url": url_for("api_inputs.show", ref=stored.ref),
    }
