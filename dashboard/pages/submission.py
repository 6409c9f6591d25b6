"""The form for a new job: shown, checked, submitted."""

from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard import submitting
from dashboard.arguments import integer
from dashboard.auth import identity
from dashboard.context import context
from dashboard.pages import again, parameters
from dashboard.pages.job_form import (
    EACH_PICTURE,
    FORM_FIELDS,
    PRESET_FIELDS,
    TEXT_FORMATS,
    JobForm,
    header_digest,
    keep_as_text,
    read_job_form,
)
from dashboard.pages.summary import Summary, summarise
from farm.batch_sizes import find_batch_sizes
from farm.errors import InvalidSubmissionError, Problem
from producer.inputs import find_inputs
from producer.intake import KNOWN, read_file
from producer.presets import get_preset, presets_of
from producer.preview import MAX_COLUMNS_MAPPED, Preview, preview_job
from producer.sweeps import AXES
from producer.words import word_lists

__all__ = ["FORM_FIELDS", "blueprint"]

blueprint = Blueprint("submission", __name__)

#: Beyond these a note about unused columns says nothing more, and addresses have limits.
MAX_COLUMNS_NAMED = 10
MAX_COLUMN_CHARACTERS = 60


@blueprint.get("/jobs/new")
def form() -> str:
    """The form: empty, or filled from ``preset``, or from ``from_job`` (of which ``image`` picks one picture)."""
    job_id, index, preset_id = integer("from_job"), integer("image"), integer("preset")
    if job_id is not None:
        start = again.from_job(job_id) if index is None else again.from_image(job_id, index)
        return render_form(start.given, notice=start.notice, rows_url=start.rows_url)
    if preset_id is not None:
        preset = get_preset(context().engine, preset_id, identity().name)
        given = {name: text for name, text in preset.fields.items() if name in PRESET_FIELDS}
        return render_form(given, notice=f"Loaded the preset “{preset.name}”.")
    return render_form({})


@blueprint.post("/jobs/new")
def submit() -> Response:
    """Take the form; refused, it comes back as it was, with what is wrong beside its fields and in its rows."""
    job = read_job_form()
    try:
        job.check()
        if job.is_empty:
            raise InvalidSubmissionError([Problem("prompt", "is empty; write at least one, or choose a file")])
        intake = read_file(job.filename, job.data, job.columns)
        receipt = submitting.submit(job.fields, intake)
    except InvalidSubmissionError as error:
        keep_as_text(job)
        page = render_form(job.given, job=job, error=error, preview=None if job.is_empty else _preview(job))
        return _page(page, HTTPStatus.UNPROCESSABLE_ENTITY)
    unused = [column[:MAX_COLUMN_CHARACTERS] for column in receipt.ignored_columns[:MAX_COLUMNS_NAMED] if column]
    return redirect(url_for("pages.job", job_id=receipt.job_id, unused=unused), HTTPStatus.SEE_OTHER)


@blueprint.post("/jobs/new/preview")
def check() -> Response:
    """What submitting would do: to our script the preview alone, to everybody else the page with it. Writes no job."""
    job = read_job_form()
    preview = None if job.is_empty else _preview(job)
    if request.headers.get("HX-Request"):
        return _page(render_template("_preview.html", **_preview_context(job, preview)))
    keep_as_text(job)
    return _page(render_form(job.given, job=job, preview=preview))


@blueprint.post("/jobs/new/restore")
def restore() -> Response:
    """The form as a picture of a farm says it was made."""
    file = request.files.get("restore_file")
    try:
        start = again.from_picture(b"" if file is None else file.read())
    except InvalidSubmissionError as error:
        return _page(render_form(request.form.to_dict(), error=error), HTTPStatus.UNPROCESSABLE_ENTITY)
    return _page(render_form(start.given, notice=start.notice))


@blueprint.get("/jobs/<int:job_id>/rows.jsonl")
def rows(job_id: int) -> Response:
    """All rows of a job as a file that can be submitted again, with the fields that the form is filled with."""
    name = f"job-{job_id}-rows.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(again.all_rows(job_id), mimetype="application/jsonl", headers=headers)


def render_form(
    given: dict[str, str],
    *,
    error: InvalidSubmissionError | None = None,
    preview: Preview | None = None,
    job: JobForm | None = None,
    notice: str | None = None,
    rows_url: str | None = None,
) -> str:
    """The page of the form, with these fields filled in."""
    farm = context()
    problems = list(error.problems) if error else list(preview.problems) if preview else []
    return render_template(
        "new_job.html",
        catalog=farm.catalog,
        default=farm.settings.pipeline,
        groups=parameters.groups(),
        given=given,
        filled=[name for name, value in given.items() if value],
        problems=problems,
        total=error.total if error else 0,
        refused=error is not None,
        formats=TEXT_FORMATS,
        axes=AXES,
        each_picture=EACH_PICTURE,
        presets=presets_of(farm.engine, identity().name),
        notice=notice,
        rows_url=rows_url,
        **_preview_context(job, preview),
    )


def _preview(job: JobForm) -> Preview:
    """The preview of the form's rows, with the columns as they were said to be."""
    farm = context()
    preview = preview_job(
        farm.catalog,
        farm.settings.pipeline,
        job.fields,
        job.filename,
        job.data,
        job.columns,
        lambda refs: find_inputs(farm.engine, refs),
        lambda: word_lists(farm.engine),
        partial(find_batch_sizes, farm.engine),
    )
    if job.problems:
        preview.problems = [*job.problems, *preview.problems]
        preview.problem_count += len(job.problems)
        preview.plan = None
    return preview


def _preview_context(job: JobForm | None, preview: Preview | None) -> dict[str, Any]:
    """What the template of the preview needs."""
    summary: Summary | None = None
    sheet = preview.sheet if preview else None
    if preview is not None and preview.plan is not None and sheet is not None:
        summary = summarise(preview.plan, preview.batches, sheet.row_count)
    return {
        "preview": preview,
        "form_problems": job.problems if job else [],
        "summary": summary,
        "known_parameters": KNOWN,
        "mapped_for": request.form.get("columns_for", ""),
        "digest": header_digest(sheet.columns) if sheet else "",
        "max_columns": MAX_COLUMNS_MAPPED,
        "file_format": (sheet is not None and job is not None and job.filename.rpartition(".")[2].lower()) or "",
    }


def _page(page: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    # Files may hold escapes that no page can: they are shown as question marks.
    return Response(page.encode("utf-8", "replace"), status, mimetype="text/html")
