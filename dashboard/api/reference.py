"""The API's own description: an OpenAPI document for programs."""

from flask import Blueprint, Response, current_app, jsonify

from dashboard.api.document import Json, document
from dashboard.auth import public

blueprint = Blueprint("api_reference", __name__)

_KEY = "farm-openapi"


@blueprint.get("/openapi.json")
@public
def openapi() -> Response:
    """The document; it tells nothing of this farm's jobs, so that everybody may read it."""
    return jsonify(described())


def described() -> Json:
    """The document of the running application, made once."""
    if _KEY not in current_app.extensions:
        current_app.extensions[_KEY] = document(current_app)
    made: Json = current_app.extensions[_KEY]
    return made
