"""Presets: fields of a job under a name."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify
from werkzeug.exceptions import Forbidden

from dashboard.api.bodies import read_json_object
from dashboard.api.operations import describe
from dashboard.api.schemas.farm import PresetBody, PresetDocument, Presets
from dashboard.auth import identity, may
from dashboard.context import context
from farm.errors import InvalidSubmissionError, Problem
from farm.models import Preset
from farm.roles import Role
from producer.again import form_text
from producer.presets import delete_preset, get_preset, presets_of, save_preset

blueprint = Blueprint("api_presets", __name__)


@blueprint.get("/presets")
@describe("presets", {200: Presets})
def index() -> Response:
    """The presets of who asks, and those that others share."""
    return jsonify({"presets": [_json(preset) for preset in presets_of(context().engine, identity().name)]})


@blueprint.post("/presets")
@describe("presets", {201: PresetDocument}, body=PresetBody)
def create() -> tuple[Response, int]:
    """Store ``fields`` under ``name``, in place of one's own of this name; ``shared`` shows it to everybody."""
    body = read_json_object(PresetBody)
    name, fields, shared = body.get("name"), body.get("fields"), body.get("shared", False)
    if not isinstance(name, str):
        raise _refusal("name", "must be a string")
    if not isinstance(fields, dict):
        raise _refusal("fields", 'must be an object such as {"num_inference_steps": 30}')
    if not isinstance(shared, bool):
        raise _refusal("shared", "must be true or false")
    texts = {str(field): form_text(field, value) for field, value in fields.items()}
    engine, who = context().engine, identity().name
    preset_id = save_preset(engine, who, name, texts, shared=shared)
    return jsonify(_json(get_preset(engine, preset_id, who))), HTTPStatus.CREATED


@blueprint.delete("/presets/<int:preset_id>")
@describe("presets", {204: None})
def delete(preset_id: int) -> tuple[str, int]:
    """Remove a preset: its owner and operators may."""
    engine, who = context().engine, identity().name
    preset = get_preset(engine, preset_id, who)
    if preset.owner != who and not may(Role.OPERATOR):
        raise Forbidden(f"The preset is {preset.owner}'s: its owner and operators may delete it.")
    delete_preset(engine, preset_id, who)
    return "", HTTPStatus.NO_CONTENT


def _json(preset: Preset) -> dict[str, Any]:
    return {
        "id": preset.id,
        "name": preset.name,
        "owner": preset.owner,
        "shared": preset.shared,
        "fields": preset.fields,
        "updated_at": preset.updated_at.isoformat(),
    }


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
