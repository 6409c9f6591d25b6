"""Jobs: submit, list, show, cancel."""

from collections.abc import Callable
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, url_for
from sqlalchemy import Engine

from dashboard.api.bodies import read_json_object
from dashboard.api.operations import describe, read_query
from dashboard.api.problems import problem
from dashboard.api.schemas.jobs import (
    ActionBody,
    JobChanges,
    JobDetails,
    JobDocument,
    JobPage,
    JobsQuery,
    Outcomes,
    RetriedJob,
    RetryQuery,
)
from dashboard.api.schemas.submission import KEY, SUBMISSION, Receipt, StreamQuery
from dashboard.api.submission import read_changes, read_submission
from dashboard.auth import identity, require_steering
from dashboard.context import context
from dashboard.queries.forecast import forecast
from dashboard.queries.jobs import JobFilter, JobView, get_job, job_errors, list_jobs
from dashboard.queries.paging import MAX_ID
from dashboard.steering import action_named, steer
from dashboard.submitting import submit
from farm.control import cancel_job, change_job, delete_job, pause_job, resume_job, retry_failed
from farm.errors import InvalidSubmissionError, Problem
from farm.removal import render_removed
from farm.states import JobState

blueprint = Blueprint("api_jobs", __name__)


@blueprint.post("/jobs")
@describe(
    "jobs",
    {201: Receipt},
    body=SUBMISSION,
    query=StreamQuery,
    headers=KEY,
    problems=(HTTPStatus.CONFLICT,),
    told={
        "Location": "Address of the job.",
        "Idempotent-Replayed": "true if the Idempotency-Key was used before, and this is the job of then.",
    },
)
def create() -> Response:
    """Submit a job: JSON with ``prompts`` or ``rows``, a form with the part ``file``, or a stream of JSON lines."""
    sent = read_submission()
    receipt = submit(sent.fields, sent.intake, sent.digest)
    url = url_for("api_jobs.show", job_id=receipt.job_id)
    response = jsonify(
        {
            "id": receipt.job_id,
            "url": url,
            "image_count": receipt.image_count,
            "batch_count": receipt.batch_count,
            "seed": receipt.seed,
            "ignored_columns": list(receipt.ignored_columns),
            "test_images": receipt.test_images,
        }
    )
    response.status = HTTPStatus.CREATED
    response.location = url
    if receipt.repeated:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@blueprint.get("/jobs")
@describe("jobs", {200: JobPage}, query=JobsQuery)
def index() -> Response:
    """The newest jobs; ``next`` is the ``before`` of the next page."""
    farm = context()
    asked = read_query(JobsQuery)
    wanted = JobFilter(asked.state, asked.owner, asked.pipeline, asked.q, asked.since, asked.until)
    if asked.finished is not None:
        wanted = replace(wanted, finished=asked.finished == "true")
    page = list_jobs(farm.engine, farm.board, asked.limit, asked.before, wanted)
    jobs = [job_json(view) for view in page.entries]
    return jsonify({"jobs": jobs, "next": page.entries[-1].job.id if page.more else None})


@blueprint.get("/jobs/<int:job_id>")
@describe("jobs", {200: JobDetails})
def show(job_id: int) -> Response:
    """One job, with the reasons of its failed images."""
    farm = context()
    view = get_job(farm.engine, farm.board, job_id)
    errors = [{"message": group.message, "count": group.count} for group in job_errors(farm.engine, job_id)]
    expected = forecast(farm.engine, view, farm.settings.lease_seconds)
    shown = None if expected is None else asdict(expected)
    return jsonify({**job_json(view), "spec": view.job.spec, "errors": errors, "forecast": shown})


@blueprint.patch("/jobs/<int:job_id>")
@describe("jobs", {200: JobDocument}, body=JobChanges, problems=(HTTPStatus.CONFLICT,))
def change(job_id: int) -> Response:
    """Change ``priority``, ``name``, ``max_devices``, ``deadline``, ``keep_days`` or ``keep_starred`` of a job."""
    farm = context()
    require_steering(get_job(farm.engine, farm.board, job_id).job)
    changes = read_changes(read_json_object(JobChanges))
    if not change_job(farm.engine, job_id, identity().name, **changes):
        return _ended(job_id, "be changed")
    return jsonify(job_json(get_job(farm.engine, farm.board, job_id)))


@blueprint.post("/jobs/<int:job_id>/cancel")
@describe("jobs", {200: JobDocument}, problems=(HTTPStatus.CONFLICT,))
def cancel(job_id: int) -> Response:
    """Cancel a job; cancelling it again is fine, one that ended otherwise is a conflict."""
    farm = context()
    require_steering(get_job(farm.engine, farm.board, job_id).job)
    cancel_job(farm.engine, job_id, identity().name)
    view = get_job(farm.engine, farm.board, job_id)
    return jsonify(job_json(view)) if view.job.state is JobState.CANCELLED else _ended(job_id, "be cancelled")


@blueprint.post("/jobs/<int:job_id>/pause")
@describe("jobs", {200: JobDocument}, problems=(HTTPStatus.CONFLICT,))
def pause(job_id: int) -> Response:
    """Let no further batch of a job begin; those that are being rendered are finished."""
    return _act(job_id, pause_job, "be paused")


@blueprint.post("/jobs/<int:job_id>/resume")
@describe("jobs", {200: JobDocument}, problems=(HTTPStatus.CONFLICT,))
def resume(job_id: int) -> Response:
    """Go on with a paused job; one that is not paused goes on as it did."""
    return _act(job_id, resume_job, "be resumed")


@blueprint.post("/jobs/<int:job_id>/retry")
@describe("jobs", {200: RetriedJob}, query=RetryQuery)
def retry(job_id: int) -> Response:
    """Render the failed images of a job again, or with ``removed=true`` those whose pictures were removed; ``retried``
    says how many there were.
    """
    farm = context()
    require_steering(get_job(farm.engine, farm.board, job_id).job)
    again = render_removed if read_query(RetryQuery).removed == "true" else retry_failed
    retried = again(farm.engine, job_id, identity().name)
    return jsonify({**job_json(get_job(farm.engine, farm.board, job_id)), "retried": retried})


@blueprint.delete("/jobs/<int:job_id>")
@describe("jobs", {204: None}, problems=(HTTPStatus.CONFLICT,))
def delete(job_id: int) -> tuple[str, int] | Response:
    """Delete a job that has ended, with its pictures; there is no way back."""
    farm = context()
    require_steering(get_job(farm.engine, farm.board, job_id).job)
    if not delete_job(farm.engine, job_id, identity().name):
        return problem(HTTPStatus.CONFLICT, f"Job {job_id} has not ended. Cancel it first, then delete it.")
    return "", HTTPStatus.NO_CONTENT


@blueprint.post("/jobs/actions")
@describe("jobs", {200: Outcomes}, body=ActionBody)
def actions() -> Response:
    """Do one thing to many jobs: ``action`` (pause, resume, cancel, retry, priority, delete), ``jobs``."""
    body = read_json_object(ActionBody, closed=True)
    if body.get("priority") is not None:
        action_named("priority", body["priority"])
    action, numbers = action_named(body.get("action"), body.get("priority")), body.get("jobs")
    if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number <= MAX_ID for number in numbers):
        raise InvalidSubmissionError([Problem("jobs", "must be a list of their numbers")])
    outcomes = steer(context().engine, numbers, action, identity())
    told = [{"job": one.job_id, "done": one.done, "reason": one.reason or None} for one in outcomes]
    return jsonify({"outcomes": told})


def _act(job_id: int, act: Callable[[Engine, int, str], bool], what: str) -> Response:
    farm = context()
    require_steering(get_job(farm.engine, farm.board, job_id).job)
    if not act(farm.engine, job_id, identity().name):
        return _ended(job_id, what)
    return jsonify(job_json(get_job(farm.engine, farm.board, job_id)))


def _ended(job_id: int, what: str) -> Response:
    farm = context()
    state = get_job(farm.engine, farm.board, job_id).job.state.value
    return problem(HTTPStatus.CONFLICT, f"Job {job_id} is {state} and cannot {what} any more.")


def job_json(view: JobView) -> dict[str, Any]:
    """A job as the API shows it; times are ISO 8601."""
    job = view.job
    return {
        "id": job.id,
        "name": job.name,
        "owner": job.owner,
        "pipeline": job.pipeline,
        "priority": job.priority,
        "after": job.after_job_id,
        "requires": job.requires,
        "max_devices": job.max_devices,
        "deadline": job.deadline and job.deadline.isoformat(),
        "state": job.state.value,
        "paused": job.paused_at is not None,
        "test_images": job.test_images,
        "images": {
            "total": job.image_count,
            "completed": job.images_completed,
            "failed": job.images_failed,
            "cancelled": view.images_cancelled,
            "pending": view.images_pending,
            "removed": job.images_removed,
        },
        "keep_days": job.keep_days,
        "keep_starred": job.keep_starred,
        "progress": round(view.progress, 4),
        "images_per_minute": view.images_per_minute,
        "seconds_left": view.seconds_left,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at and job.started_at.isoformat(),
        "finished_at": job.finished_at and job.finished_at.isoformat(),
        "url": url_for("api_jobs.show", job_id=job.id),
        "images_url": url_for("api_images.index", job_id=job.id),
    }
