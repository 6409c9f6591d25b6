"""Addresses of pictures that work without log-in, for a while: whoever has one may see the picture.

Where browsers reach the store itself they are the store's; else they lead here, signed with a key that all dashboards
of the farm share.
"""

from flask import url_for
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from werkzeug.exceptions import Gone

from dashboard.context import context
from dashboard.queries.images import ImageView
from dashboard.removed import picture_key
from farm.errors import NotFoundError
from farm.signing_keys import signing_key

SIGNED_URL_SECONDS = 3600


def signed_url(view: ImageView) -> str:
    """Where anybody can fetch a finished picture for an hour. Raises NotFoundError or Gone for what is not there."""
    image = view.image
    url = context().store.public_url(picture_key(image), SIGNED_URL_SECONDS)
    if url is not None:
        return url
    return url_for("signed.picture", token=_serializer().dumps([image.job_id, image.index]), _external=True)


def read_signed(token: str) -> tuple[int, int]:
    """Job and index of the picture that a token of ``signed_url`` lets see. Raises NotFoundError and Gone."""
    try:
        job_id, index = _serializer(make=False).loads(token, max_age=SIGNED_URL_SECONDS)
    except SignatureExpired:
        raise Gone("This address was good for an hour, and that is over. Ask for a new one.") from None
    except BadSignature:
        raise NotFoundError("There is no picture at this address.") from None
    return job_id, index


def _serializer(*, make: bool = True) -> URLSafeTimedSerializer:
    farm = context()
    key = farm.shared.get(
        "signing key", lambda _before: signing_key(farm.engine, "pictures", make=make), SIGNED_URL_SECONDS
    )
    return URLSafeTimedSerializer(key, salt="picture")
