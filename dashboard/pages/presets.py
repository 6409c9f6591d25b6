"""Presets on the page of the form: saved from it and deleted; they are loaded by its address."""

from http import HTTPStatus

from flask import Blueprint, render_template, request
from werkzeug.exceptions import Forbidden
from werkzeug.wrappers import Response

from dashboard.auth import identity, may
from dashboard.context import context
from dashboard.pages.job_form import PRESET_FIELDS
from dashboard.pages.submission import render_form
from farm.errors import InvalidSubmissionError
from farm.models import Preset
from farm.roles import Role
from producer.presets import delete_preset, get_preset, presets_of, save_preset

blueprint = Blueprint("presets", __name__)


@blueprint.post("/jobs/new/presets")
def save() -> Response:
    """Keep the form's fields, without its rows, under ``preset_name``."""
    said = {name: request.form.get(name, "").strip() for name in PRESET_FIELDS}
    fields = {name: value for name, value in said.items() if value and (name, value) != ("refiner", "yes")}
    name = request.form.get("preset_name", "")
    shared = request.form.get("preset_shared") == "yes"
    try:
        save_preset(context().engine, identity().name, name, fields, shared=shared)
    except InvalidSubmissionError as error:
        return _answer(error=error)
    return _answer(notice=f"Saved the preset “{name.strip()}”.")


@blueprint.post("/jobs/new/presets/<int:preset_id>/delete")
def delete(preset_id: int) -> Response:
    """Remove a preset."""
    preset = get_preset(context().engine, preset_id, identity().name)
    require_ownership(preset)
    delete_preset(context().engine, preset_id, identity().name)
    return _answer(notice=f"Deleted the preset “{preset.name}”.")


def require_ownership(preset: Preset) -> None:
    """Raise Forbidden unless who asks may delete the preset: its owner and operators may."""
    if preset.owner != identity().name and not may(Role.OPERATOR):
        raise Forbidden(f"The preset is {preset.owner}'s: its owner and operators may delete it.")


def _answer(*, notice: str | None = None, error: InvalidSubmissionError | None = None) -> Response:
    """The list alone for our script, the page with the form as it was for everybody else."""
    status = HTTPStatus.OK if error is None else HTTPStatus.UNPROCESSABLE_ENTITY
    if request.headers.get("HX-Request"):
        presets = presets_of(context().engine, identity().name)
        problems = error.problems if error else []
        page = render_template("_presets.html", presets=presets, problems=problems, given={}, preset_notice=notice)
    else:
        page = render_form(request.form.to_dict(), notice=notice, error=error)
    return Response(page.encode("utf-8", "replace"), status, mimetype="text/html")
