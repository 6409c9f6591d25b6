"""Jobs: submit, list, show, cancel; and the catalog that they choose from."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, request, url_for

from dashboard.api.problems import problem
from dashboard.arguments import integer, page_size, state
from dashboard.context import context
from dashboard.queries import JobView, get_job, job_errors, list_jobs
from farm.errors import InvalidSubmissionError, Problem
from farm.states import JobState
from farm.transitions import cancel_job
from producer.intake import Intake, Row, object_row, read_file
from producer.submit import submit_job

blueprint = Blueprint("api_jobs", __name__)


@blueprint.post("/jobs")
def create() -> tuple[Response, int] | Response:
    """Submit a job: JSON with ``prompts`` or ``rows``, or a form with the part ``file``."""
    if request.mimetype == "application/json":
        fields, intake = _read_json(request.get_json())
    elif request.mimetype == "multipart/form-data":
        fields, intake = _read_form()
    else:
        return problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json, or multipart/form-data with the part 'file'."
        )
    farm = context()
    receipt = submit_job(farm.engine, farm.catalog, farm.settings.pipeline, fields, intake)
    body = {
        "id": receipt.job_id,
        "url": url_for("api_jobs.show", job_id=receipt.job_id),
        "image_count": receipt.image_count,
        "batch_count": receipt.batch_count,
        "seed": receipt.seed,
        "ignored_columns": list(receipt.ignored_columns),
    }
    return jsonify(body), HTTPStatus.CREATED


@blueprint.get("/jobs")
def index() -> Response:
    """The newest jobs; ``next`` is the ``before`` of the next page."""
    farm = context()
    limit = page_size(20)
    jobs = list_jobs(farm.engine, farm.board, limit, integer("before"), state("state", JobState))
    return jsonify({"jobs": [job_json(view) for view in jobs], "next": jobs[-1].job.id if len(jobs) == limit else None})


@blueprint.get("/jobs/<int:job_id>")
def show(job_id: int) -> Response:
    """One job, with the reasons of its failed images."""
    farm = context()
    view = get_job(farm.engine, farm.board, job_id)
    errors = [{"message": group.message, "count": group.count} for group in job_errors(farm.engine, job_id)]
    return jsonify({**job_json(view), "spec": view.job.spec, "errors": errors})


@blueprint.post("/jobs/<int:job_id>/cancel")
def cancel(job_id: int) -> Response:
    """Cancel a job; cancelling it again is fine, one that ended otherwise is a conflict."""
    farm = context()
    get_job(farm.engine, farm.board, job_id)
    cancel_job(farm.engine, job_id)
    view = get_job(farm.engine, farm.board, job_id)
    if view.job.state is not JobState.CANCELLED:
        return problem(HTTPStatus.CONFLICT, f"Job {job_id} is {view.job.state.value} and cannot be cancelled any more.")
    return jsonify(job_json(view))


@blueprint.get("/pipelines")
def pipelines() -> Response:
    """The catalog: what may be named as ``pipeline``, with defaults and limits."""
    farm = context()
    entries = [
        {
            "name": entry.name,
            "default": entry.name == farm.settings.pipeline,
            "has_refiner": entry.refiner is not None,
            "batch_size": entry.batch_size,
            "max_width": entry.max_width,
            "max_height": entry.max_height,
            "defaults": entry.defaults.model_dump(),
        }
        for entry in farm.catalog
    ]
    return jsonify({"pipelines": entries})


def job_json(view: JobView) -> dict[str, Any]:
    """A job as the API shows it; times are ISO 8601."""
    job = view.job
    return {
        "id": job.id,
        "name": job.name,
        "owner": job.owner,
        "pipeline": job.pipeline,
        "priority": job.priority,
        "state": job.state.value,
        "images": {
            "total": job.image_count,
            "completed": job.images_completed,
            "failed": job.images_failed,
            "cancelled": view.images_cancelled,
            "pending": view.images_pending,
        },
        "progress": round(view.progress, 4),
        "images_per_minute": view.images_per_minute,
        "seconds_left": view.seconds_left,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at and job.started_at.isoformat(),
        "finished_at": job.finished_at and job.finished_at.isoformat(),
        "url": url_for("api_jobs.show", job_id=job.id),
        "images_url": url_for("api_images.index", job_id=job.id),
    }


def _read_json(body: Any) -> tuple[dict[str, Any], Intake]:
    if not isinstance(body, dict):
        raise _refusal("body", 'must be an object such as {"prompts": ["a fox"]}')
    fields = dict(body)
    prompts, rows = fields.pop("prompts", []), fields.pop("rows", [])
    if not isinstance(prompts, list):
        raise _refusal("prompts", "must be a list of strings")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _refusal("rows", 'must be a list of objects such as {"prompt": "a fox"}')
    # Entries are counted from 1, like the lines of a file.
    read = [Row({"prompt": prompt}, number) for number, prompt in enumerate(prompts, start=1)]
    read += [object_row(row, number) for number, row in enumerate(rows, start=1)]
    return fields, Intake(read)


def _read_form() -> tuple[dict[str, Any], Intake]:
    file = request.files.get("file")
    if file is None:
        raise _refusal("file", "is missing; send the prompts as the part 'file'")
    return request.form.to_dict(), read_file(file.filename or "", file.read())


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
