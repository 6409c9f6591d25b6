"""Pages and the fragments that htmx fetches to keep them live."""

from datetime import UTC, datetime
from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.arguments import integer
from dashboard.auth import identity, require_steering
from dashboard.context import context
from dashboard.pages.gallery import gallery_of, viewer_of
from dashboard.queries.images import covers, ended_since, get_image
from dashboard.queries.jobs import JobView, get_job, job_errors, list_jobs
from dashboard.queries.workers import list_workers
from farm.control import cancel_job

blueprint = Blueprint("pages", __name__)

JOBS_PER_PAGE = 25
#: More tiles than this at once, and the page is better loaded anew.
TILES_PER_POLL = 500
#: Screen readers hear of progress in steps of so many percent, and not every second.
ANNOUNCED_PERCENT = 10
#: To htmx this status is a 200 that also ends the polling.
STOP_POLLING = 286
#: 31 December 9999, in milliseconds: the last moment that Python can tell.
_LAST_MOMENT = 253_402_214_400_000


@blueprint.get("/")
def jobs() -> str:
    """All jobs, newest first."""
    return render_template("jobs.html", **_jobs_page())


@blueprint.get("/fragments/jobs")
def jobs_fragment() -> str:
    """The list alone."""
    return render_template("_jobs.html", **_jobs_page())


@blueprint.get("/jobs/<int:job_id>")
def job(job_id: int) -> str:
    """One job with its gallery."""
    farm = context()
    view = get_job(farm.engine, farm.board, job_id)
    return render_template("job.html", unused=request.args.getlist("unused"), **gallery_of(view), **_live(view))


@blueprint.get("/jobs/<int:job_id>/fragments/status")
def job_status(job_id: int) -> Response:
    """What changed since the last poll: the job's numbers, and the tiles of images that ended."""
    farm = context()
    since = integer("since", 0, high=_LAST_MOMENT) or 0
    view = get_job(farm.engine, farm.board, job_id)
    tiles = ended_since(
        farm.engine, job_id, datetime.fromtimestamp(since / 1000, UTC), integer("below"), TILES_PER_POLL
    )
    if len(tiles) == TILES_PER_POLL:
        return Response(status=HTTPStatus.NO_CONTENT, headers={"HX-Refresh": "true"})
    live = _live(view)
    body = render_template("_job_live.html", tiles=tiles, told=integer("announced") == live["announced"], **live)
    return Response(body, STOP_POLLING if view.job.finished_at else HTTPStatus.OK, mimetype="text/html")


@blueprint.post("/jobs/<int:job_id>/cancel")
def cancel(job_id: int) -> Response:
    """Cancel the job and show it. If it has just ended otherwise, the page says so."""
    farm = context()
    require_steering(get_job(farm.engine, farm.board, job_id).job)
    cancel_job(farm.engine, job_id, identity().name)
    return redirect(url_for("pages.job", job_id=job_id), HTTPStatus.SEE_OTHER)


@blueprint.get("/jobs/<int:job_id>/images/<int:index>")
def image(job_id: int, index: int) -> str:
    """One picture in full size, with all its parameters."""
    farm = context()
    picture = get_image(farm.engine, job_id, index)
    return render_template("image.html", view=get_job(farm.engine, farm.board, job_id), **viewer_of(picture))


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
    page = list_jobs(farm.engine, farm.board, JOBS_PER_PAGE, before)
    return {
        "views": page.entries,
        "covers": covers(farm.engine, page.entries),
        "before": before,
        "next": page.entries[-1].job.id if page.more else None,
        "active": any(view.job.finished_at is None for view in page.entries),
    }


def _live(view: JobView) -> dict[str, object]:
    percent = int(view.progress * 100)
    return {
        "view": view,
        "errors": job_errors(context().engine, view.job.id) if view.job.images_failed else [],
        "now": int(view.now.timestamp() * 1000),
        "announced": percent - percent % ANNOUNCED_PERCENT,
    }


def _workers_page() -> dict[str, object]:
    farm = context()
    return {"workers": list_workers(farm.engine, farm.board, farm.settings.lease_seconds)}
