"""The form for a new job."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.auth import identity
from dashboard.context import context
from dashboard.pages import parameters
from farm.errors import InvalidSubmissionError, Problem
from farm.spec import INPUT_FIELDS
from producer.inputs import accept_input
from producer.intake import Intake, read_file
from producer.submit import submit_job

blueprint = Blueprint("submission", __name__)

FORM_FIELDS = (
    "name",
    "pipeline",
    "negative_prompt",
    "size",
    "num_inference_steps",
    "guidance_scale",
    "refiner_split",
    "seed",
    "images_per_prompt",
    "first",
    *parameters.names(),
)

#: Beyond these a note about unused columns says nothing more, and addresses have limits.
MAX_COLUMNS_NAMED = 10
MAX_COLUMN_CHARACTERS = 60


@blueprint.get("/jobs/new")
def form() -> str:
    """The empty form."""
    return _page({}, None)


@blueprint.post("/jobs/new")
def submit() -> Response:
    """Take the form; refused, it comes back as it was, with what is wrong beside its fields."""
    farm = context()
    given = {name: request.form.get(name, "").strip() for name in FORM_FIELDS}
    fields: dict[str, Any] = {name: value for name, value in given.items() if value}
    if request.form.get("refiner") == "no":
        fields["refiner_split"] = "none"
    try:
        fields |= _uploaded()
        receipt = submit_job(
            farm.engine, farm.catalog, farm.settings.pipeline, fields, _read_prompts(), identity().name
        )
    except InvalidSubmissionError as error:
        # Files may hold escapes that no page can: they are shown as question marks.
        page = _page(request.form.to_dict(), error).encode("utf-8", "replace")
        return Response(page, HTTPStatus.UNPROCESSABLE_ENTITY, mimetype="text/html")
    unused = [column[:MAX_COLUMN_CHARACTERS] for column in receipt.ignored_columns[:MAX_COLUMNS_NAMED] if column]
    return redirect(url_for("pages.job", job_id=receipt.job_id, unused=unused), HTTPStatus.SEE_OTHER)


def _uploaded() -> dict[str, Any]:
    """The pictures that came with the form, stored, under the names of their fields."""
    found: dict[str, list[str]] = {}
    for field in INPUT_FIELDS:
        for file in request.files.getlist(f"{field}_file"):
            if file.filename:
                found.setdefault(field, []).append(_store(field, file.read()))
    return {field: refs if field == "control_image" else refs[0] for field, refs in found.items()}


def _store(field: str, data: bytes) -> str:
    farm = context()
    try:
        return accept_input(farm.engine, farm.store, data).ref
    except InvalidSubmissionError as error:
        raise InvalidSubmissionError([Problem(field, problem.message) for problem in error.problems]) from None


def _page(given: dict[str, str], error: InvalidSubmissionError | None) -> str:
    farm = context()
    return render_template(
        "new_job.html",
        catalog=farm.catalog,
        default=farm.settings.pipeline,
        groups=parameters.groups(),
        given=given,
        filled=[name for name, value in given.items() if value],
        problems=error.problems if error else [],
        total=error.total if error else 0,
    )


def _read_prompts() -> Intake:
    """What was pasted, or the file."""
    file = request.files.get("file")
    pasted = request.form.get("prompts", "")
    if file is None or not file.filename:
        if not pasted.strip():
            raise InvalidSubmissionError([Problem("prompt", "is empty; write at least one, or choose a file")])
        return read_file("pasted.txt", pasted.encode())
    if pasted.strip():
        raise InvalidSubmissionError(
            [Problem("file", "cannot be sent together with pasted prompts; clear one of them")]
        )
    return read_file(file.filename, file.read())
