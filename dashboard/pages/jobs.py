"""The list of jobs, the page of one, and what people do there to one or many of them."""

from datetime import UTC, datetime
from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.arguments import integer, state, text
from dashboard.auth import identity, may_steer, require_steering, requires
from dashboard.context import context
from dashboard.pages.gallery import gallery_of, viewer_of
from dashboard.queries.activities import job_activities
from dashboard.queries.forecast import forecast
from dashboard.queries.images import covers, ended_since, get_image
from dashboard.queries.jobs import JobFilter, get_job, jobs_named, list_jobs, owners
from dashboard.queries.watching import Watched, watch_job
from dashboard.steering import Action, Outcome, action_named, renaming, steer
from farm.roles import Role
from farm.states import JobState

blueprint = Blueprint("pages", __name__)

JOBS_PER_PAGE = 25
#: More tiles than this at once, and the page is better loaded anew.
TILES_PER_POLL = 500
#: Screen readers hear of progress in steps of so many percent, and not every second.
ANNOUNCED_PERCENT = 10
#: To htmx this status is a 200 that also ends the polling.
STOP_POLLING = 286
#: 31 December 9999, in milliseconds: the last moment that Python can tell.
LAST_MOMENT = 253_402_214_400_000


@blueprint.get("/")
def jobs() -> str:
    """All jobs, newest first."""
    farm = context()
    return render_template(
        "jobs.html",
        owners=owners(farm.engine),
        said=[message for message in request.args.getlist("said") if len(message) <= 200],
        **jobs_page(),
    )


@blueprint.get("/fragments/jobs")
def jobs_fragment() -> str:
    """The list alone."""
    return render_template("_jobs.html", **jobs_page())


@blueprint.get("/jobs/<int:job_id>")
def job(job_id: int) -> str:
    """One job with its gallery."""
    farm = context()
    watched = watch_job(farm.engine, farm.board, job_id)
    return render_template(
        "job.html",
        activities=job_activities(farm.engine, job_id),
        unused=request.args.getlist("unused"),
        said=[message for message in request.args.getlist("said") if len(message) <= 200],
        **gallery_of(watched.view),
        **live_parts(watched),
    )


@blueprint.get("/jobs/<int:job_id>/images/<int:index>")
def image(job_id: int, index: int) -> str:
    """One picture in full size, with all its parameters."""
    farm = context()
    picture = get_image(farm.engine, job_id, index)
    return render_template("image.html", view=get_job(farm.engine, farm.board, job_id), **viewer_of(picture))


@blueprint.get("/jobs/<int:job_id>/fragments/status")
def job_status(job_id: int) -> Response:
    """What changed since the last poll: the job's numbers, and the tiles of images that ended."""
    farm = context()
    since = integer("since", 0, high=LAST_MOMENT) or 0
    watched = watch_job(farm.engine, farm.board, job_id)
    tiles = ended_since(
        farm.engine, job_id, datetime.fromtimestamp(since / 1000, UTC), integer("below"), TILES_PER_POLL
    )
    if len(tiles) == TILES_PER_POLL:
        return Response(status=HTTPStatus.NO_CONTENT, headers={"HX-Refresh": "true"})
    body = render_template("_job_live.html", tiles=tiles, **live_parts(watched))
    return Response(body, STOP_POLLING if watched.view.job.finished_at else HTTPStatus.OK, mimetype="text/html")


@blueprint.get("/jobs/<int:job_id>/fragments/actions")
def job_actions(job_id: int) -> str:
    """The buttons that fit the job's state."""
    farm = context()
    return render_template("_job_actions.html", watched=watch_job(farm.engine, farm.board, job_id))


@blueprint.post("/jobs/act")
def act() -> Response:
    """Do one thing to one or many jobs, and show what became of it. Form fields: ``action``, ``job`` (many times)."""
    action = action_named(request.form.get("action"), request.form.get("priority"))
    numbers = _numbers(request.form.getlist("job"))
    outcomes = steer(context().engine, numbers, action, identity())
    said = _said(action, outcomes)
    # A job that is deleted has no page to come back to.
    from_job = len(numbers) == 1 and request.form.get("from") == "job" and request.form.get("action") != "delete"
    goal = url_for("pages.job", job_id=numbers[0], said=said) if from_job else url_for("pages.jobs", said=said)
    return redirect(goal, HTTPStatus.SEE_OTHER)


@blueprint.get("/jobs/delete")
@requires(Role.SUBMITTER)
def confirm_deletion() -> str:
    """Which jobs would be deleted, and the button that does it. Query: ``job`` (many times)."""
    found = jobs_named(context().engine, _numbers(request.args.getlist("job")))
    ours = [job for job in found if may_steer(job)]
    return render_template(
        "delete_jobs.html",
        deletable=[job for job in ours if job.finished_at is not None],
        unfinished=[job for job in ours if job.finished_at is None],
        others=[job for job in found if not may_steer(job)],
    )


@blueprint.post("/jobs/<int:job_id>/name")
def rename(job_id: int) -> Response:
    """Give a job another name."""
    farm = context()
    require_steering(get_job(farm.engine, farm.board, job_id).job)
    steer(farm.engine, [job_id], renaming(request.form.get("name", "")), identity())
    return redirect(url_for("pages.job", job_id=job_id), HTTPStatus.SEE_OTHER)


def jobs_page() -> dict[str, object]:
    """What the list of jobs shows, by the request's filters."""
    farm = context()
    before = integer("before")
    filters = {"state": state("state", JobState), "owner": text("owner"), "words": text("words")}
    wanted = JobFilter(state("state", JobState), text("owner"), words=text("words"))
    page = list_jobs(farm.engine, farm.board, JOBS_PER_PAGE, before, wanted)
    return {
        "views": page.entries,
        "covers": covers(farm.engine, page.entries),
        "before": before,
        "next": page.entries[-1].job.id if page.more else None,
        "active": any(view.job.finished_at is None for view in page.entries),
        "filters": {name: value for name, value in filters.items() if value is not None},
    }


def live_parts(watched: Watched) -> dict[str, object]:
    """What the live part of a job's page shows."""
    farm = context()
    percent = int(watched.view.progress * 100)
    has_deadline = watched.view.job.deadline is not None
    return {
        "expected": forecast(farm.engine, watched.view, farm.settings.lease_seconds) if has_deadline else None,
        "watched": watched,
        "view": watched.view,
        "now": int(watched.view.now.timestamp() * 1000),
        "announced": percent - percent % ANNOUNCED_PERCENT,
    }


def _numbers(texts: list[str]) -> list[int]:
    return [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 19]


def _said(action: Action, outcomes: list[Outcome]) -> list[str]:
    """What became of it, in words."""
    done = [outcome.job_id for outcome in outcomes if outcome.done]
    said = [f"{action.past}: {_jobs(done)}."] if done else []
    reasons: dict[str, list[int]] = {}
    for outcome in outcomes:
        if not outcome.done:
            reasons.setdefault(outcome.reason, []).append(outcome.job_id)
    said += [f"{_jobs(numbers)}: {reason}." for reason, numbers in reasons.items()]
    return said or ["No job was chosen."]


def _jobs(numbers: list[int]) -> str:
    if len(numbers) > 5:
        return f"{len(numbers)} jobs"
    return f"{'job' if len(numbers) == 1 else 'jobs'} {', '.join(map(str, numbers))}"
