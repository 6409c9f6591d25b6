"""The API's own description: an OpenAPI document for programs."""

from flask import Blueprint, current_app, jsonify, request
from werkzeug.wrappers import Response as AnyResponse

from dashboard.api.document import Json, document
from dashboard.auth import public
from dashboard.context import context

blueprint = Blueprint("api_reference", __name__)

_KEY = "farm-openapi"


@blueprint.get("/openapi.json")
@public
def openapi() -> AnyResponse:
    """The document; it tells nothing of this farm's jobs, so that everybody may read it."""
    response = jsonify(described())
    response.add_etag()
    return response.make_conditional(request)


def described() -> Json:
    """The document of the running application, made once."""
    if _KEY not in current_app.extensions:
        current_app.extensions[_KEY] = document(current_app, [entry.name for entry in context().catalog])
    made: Json = current_app.extensions[_KEY]
    return made
