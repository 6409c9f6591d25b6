"""OpenAI's images API, so that its own clients make pictures here (https://platform.openai.com/docs/api-reference/images)."""

import base64
import time
from contextlib import ExitStack
from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import UnsupportedMediaType

from dashboard.api.bodies import read_json_object
from dashboard.compatible.bodies import form_values, read_body, refusal
from dashboard.compatible.inputs import openai_mask, opened, stored, stored_bytes, transparent_parts
from dashboard.compatible.openai_bodies import (
    EDIT_STRENGTH,
    VARIATION_STRENGTH,
    PromptBody,
    VariationBody,
    pipeline_of,
    wish_of,
)
from dashboard.compatible.openai_events import QUALITIES, USAGE, PictureEvents
from dashboard.compatible.rendering import Rendering, Wish, begin, place, read_picture
from dashboard.context import context
from dashboard.queries.images import ImageView
from dashboard.signing import signed_url

blueprint = Blueprint("openai", __name__)

Json = dict[str, Any]


@blueprint.get("/models")
def models() -> Response:
    """The catalog's pipelines."""
    return jsonify({"object": "list", "data": [_model(entry.name) for entry in context().catalog]})


@blueprint.get("/models/<name>")
def model(name: str) -> Response:
    """One of them, or the default pipeline by the name of a model of OpenAI's."""
    pipeline_of(name)
    return jsonify(_model(name))


@blueprint.post("/images/generations")
def generate() -> Response:
    """Pictures from a prompt."""
    body = read_body(PromptBody, read_json_object())
    return _answer(body, wish_of(body), "image_generation")


@blueprint.post("/images/edits")
def edit() -> Response:
    """Pictures from a picture and a prompt: what the mask's transparent part shows is painted anew."""
    body, data = read_body(PromptBody, _form()), _picture()
    picture, file = opened("image", data), request.files.get("mask")
    # As with OpenAI's first model, a picture may be its own mask.
    mask = transparent_parts(picture) if file is None else openai_mask(file.read(), picture.size)
    if mask is None:
        wish = wish_of(body, {"image": stored_bytes(data)}, EDIT_STRENGTH)
    else:
        wish = wish_of(body, {"image": stored_bytes(data), "mask_image": stored(mask)})
    return _answer(body, wish, "image_edit")


@blueprint.post("/images/variations")
def vary() -> Response:
    """Pictures from a picture."""
    body, data = read_body(VariationBody, _form()), _picture()
    opened("image", data)
    return _answer(body, wish_of(body, {"image": stored_bytes(data)}, VARIATION_STRENGTH), "image_edit")


def _answer(body: PromptBody | VariationBody, wish: Wish, kind: str) -> Response:
    with ExitStack() as held:
        held.enter_context(place())
        rendering = begin(wish)
        if body.stream:
            events = PictureEvents(rendering, kind, body.partial_images, body.output_format, body.quality)
            response = events.response()
            response.call_on_close(held.pop_all().close)
        else:
            response = jsonify(_pictures(body, rendering))
    response.headers["X-Farm-Job"] = str(rendering.job_id)
    return response


def _pictures(body: PromptBody | VariationBody, rendering: Rendering) -> Json:
    views = rendering.wait()
    parameters = views[0].parameters
    answer = {
        "created": int(time.time()),
        "data": [_picture_json(view, by_url=body.by_url) for view in views],
        "background": "opaque",
        "output_format": body.output_format,
        "size": f"{parameters['width']}x{parameters['height']}",
        "usage": USAGE,
    }
    return answer | ({"quality": body.quality} if body.quality in QUALITIES else {})


def _picture_json(view: ImageView, *, by_url: bool) -> Json:
    shown = {"url": signed_url(view)} if by_url else {"b64_json": base64.b64encode(read_picture(view)).decode("ascii")}
    return {**shown, "revised_prompt": view.image.prompt, "seed": view.image.seed}


def _form() -> Json:
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("Send multipart/form-data with the picture as the part 'image'.")
    return form_values(request.form)


def _picture() -> bytes:
    sent = [*request.files.getlist("image"), *request.files.getlist("image[]")]
    if not sent:
        raise refusal("image", "is missing; send the picture to start from")
    if len(sent) > 1:
        raise refusal("image", "are several, and SDXL starts from one; send one")
    data: bytes = sent[0].read()
    return data


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sdxl-farm"}
