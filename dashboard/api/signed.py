"""Pictures at addresses that need no log-in."""

from flask import Blueprint, Response

from dashboard.auth import public
from dashboard.context import context
from dashboard.queries.images import get_image
from dashboard.removed import picture_key
from dashboard.signing import SIGNED_URL_SECONDS, read_signed

blueprint = Blueprint("signed", __name__)


@blueprint.get("/files/<token>")
@public
def picture(token: str) -> Response:
    """The picture that the token lets see."""
    view = get_image(context().engine, *read_signed(token))
    response = Response(context().store.get(picture_key(view.image)), mimetype=view.format.media_type)
    response.headers["Cache-Control"] = f"private, max-age={SIGNED_URL_SECONDS}"
    return response
