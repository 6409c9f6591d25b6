"""Pages and the fragments that htmx fetches to keep them live."""

from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.arguments import integer
from dashboard.context import context
from dashboard.queries import (
    MAX_INDEX,
    ImageView,
    get_image,
    get_job,
    job_errors,
    just_finished,
    list_images,
    list_jobs,
    list_workers,
)
from farm.errors import InvalidSubmissionError
from farm.transitions import cancel_job
from producer.intake import Intake, read_file
from producer.submit import submit_job

blueprint = Blueprint("pages", __name__)

JOBS_PER_PAGE = 25
IMAGES_PER_PAGE = 60

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
)


@blueprint.get("/")
def jobs() -> str:
    """All jobs, newest first."""
    return render_template("jobs.html", **_jobs_page())


@blueprint.get("/fragments/jobs")
def jobs_fragment() -> str:
    """The list alone."""
    return render_template("_jobs.html", **_jobs_page())


@blueprint.get("/jobs/new")
def new_job() -> str:
    """The form."""
    farm = context()
    return render_template("new_job.html", catalog=farm.catalog, default=farm.settings.pipeline, given={}, problems=[])


@blueprint.post("/jobs/new")
def submit() -> Response | tuple[str, int]:
    """Take the form; refused, it comes back as it was, with what is wrong beside its fields."""
    farm = context()
    given = {name: request.form.get(name, "").strip() for name in FORM_FIELDS}
    fields = {name: value for name, value in given.items() if value}
    if request.form.get("refiner") == "no":
        fields["refiner_split"] = "none"
    try:
        receipt = submit_job(farm.engine, farm.catalog, farm.settings.pipeline, fields, _read_prompts())
    except InvalidSubmissionError as error:
        page = render_template(
            "new_job.html",
            catalog=farm.catalog,
            default=farm.settings.pipeline,
            given={**request.form.to_dict()},
            problems=error.problems,
            more=error.total - len(error.problems),
        )
        return page, HTTPStatus.UNPROCESSABLE_ENTITY
    return redirect(url_for("pages.job", job_id=receipt.job_id), HTTPStatus.SEE_OTHER)


@blueprint.get("/jobs/<int:job_id>")
def job(job_id: int) -> str:
    """One job with its gallery."""
    farm = context()
    view = get_job(farm.engine, farm.board, job_id)
    images = list_images(farm.engine, job_id, IMAGES_PER_PAGE)
    return render_template(
        "job.html", view=view, errors=job_errors(farm.engine, job_id), images=images, more=_more_after(images)
    )


@blueprint.get("/jobs/<int:job_id>/fragments/status")
def job_status(job_id: int) -> str | tuple[str, dict[str, str]]:
    """The job's live part, and the tiles whose pictures have just come; when the job has ended, the whole page."""
    farm = context()
    view = get_job(farm.engine, farm.board, job_id)
    if view.job.finished_at is not None:
        return "", {"HX-Refresh": "true"}
    return render_template(
        "_job_live.html",
        view=view,
        errors=job_errors(farm.engine, job_id),
        images=just_finished(farm.engine, job_id, integer("through", IMAGES_PER_PAGE - 1, high=MAX_INDEX) or 0),
    )


@blueprint.get("/jobs/<int:job_id>/fragments/images")
def job_images(job_id: int) -> str:
    """A page of the gallery: the images after ``after``."""
    images = list_images(context().engine, job_id, IMAGES_PER_PAGE, integer("after"))
    return render_template("_images.html", job_id=job_id, images=images, more=_more_after(images))


@blueprint.post("/jobs/<int:job_id>/cancel")
def cancel(job_id: int) -> Response:
    """Cancel the job and show it."""
    farm = context()
    get_job(farm.engine, farm.board, job_id)
    cancel_job(farm.engine, job_id)
    return redirect(url_for("pages.job", job_id=job_id), HTTPStatus.SEE_OTHER)


@blueprint.get("/jobs/<int:job_id>/images/<int:index>")
def image(job_id: int, index: int) -> str:
    """One picture in full size, with all its parameters."""
    farm = context()
    view = get_job(farm.engine, farm.board, job_id)
    return render_template("image.html", view=view, picture=get_image(farm.engine, job_id, index))


@blueprint.get("/workers")
def workers() -> str:
    """Devices and what they do."""
    return render_template("workers.html", **_workers_page())


@blueprint.get("/fragments/workers")
def workers_fragment() -> str:
    """The table alone."""
    return render_template("_workers.html", **_workers_page())


def _jobs_page() -> dict[str, object]:
    farm = context()
    before = integer("before")
    views = list_jobs(farm.engine, farm.board, JOBS_PER_PAGE, before)
    return {"views": views, "before": before, "next": views[-1].job.id if len(views) == JOBS_PER_PAGE else None}


def _workers_page() -> dict[str, object]:
    farm = context()
    return {"workers": list_workers(farm.engine, farm.board, farm.settings.lease_seconds)}


def _more_after(images: list[ImageView]) -> int | None:
    return images[-1].image.index if len(images) == IMAGES_PER_PAGE else None


def _read_prompts() -> Intake:
    """The file if one was chosen, else what was pasted."""
    file = request.files.get("file")
    if file is not None and file.filename:
        return read_file(file.filename, file.read())
    return read_file("pasted.txt", request.form.get("prompts", "").encode())
