"""Operate: workers and what they do, queues and what holds them up, plots of the last hour, day and week."""

from collections.abc import Callable
from http import HTTPStatus

from flask import Blueprint, redirect, render_template, url_for
from sqlalchemy import Engine
from werkzeug.exceptions import Conflict
from werkzeug.wrappers import Response

from dashboard.arguments import one_of
from dashboard.auth import identity, requires
from dashboard.context import context
from dashboard.hints import hints
from dashboard.pages.filters import duration
from dashboard.queries.metrics import PLOT_STEPS, TABLE_STEPS, kept_seconds, metrics
from dashboard.queries.queues import list_queues
from dashboard.queries.workers import list_workers
from farm.roles import Role
from farm.workers import drain_worker, resume_worker

blueprint = Blueprint("operate", __name__)

RANGES = {1: "1 hour", 24: "24 hours", 168: "7 days"}


@blueprint.get("/workers")
def workers() -> str:
    """Devices and what they do."""
    return render_template("workers.html", **_workers_page())


@blueprint.get("/fragments/workers")
def workers_fragment() -> str:
    """The workers alone."""
    return render_template("_workers.html", **_workers_page())


@blueprint.post("/workers/<path:worker_id>/drain")
@requires(Role.OPERATOR)
def drain(worker_id: str) -> Response:
    """Let a worker take no further batch, and show the workers."""
    return _act(worker_id, drain_worker)


@blueprint.post("/workers/<path:worker_id>/resume")
@requires(Role.OPERATOR)
def resume(worker_id: str) -> Response:
    """Let a worker take batches again, and show the workers."""
    return _act(worker_id, resume_worker)


@blueprint.get("/queues")
def queues() -> str:
    """What waits, for whom, and why."""
    return render_template("queues.html", **_queues_page())


@blueprint.get("/fragments/queues")
def queues_fragment() -> str:
    """The table alone."""
    return render_template("_queues.html", **_queues_page())


@blueprint.get("/plots")
def plots() -> str:
    """How the farm did, as plots and as a table."""
    return render_template("plots.html", ranges=RANGES, **_plots_page())


@blueprint.get("/fragments/plots")
def plots_fragment() -> str:
    """The table alone."""
    return render_template("_plots.html", **_plots_page())


def _act(worker_id: str, act: Callable[[Engine, str, str], bool]) -> Response:
    if not act(context().engine, worker_id, identity().name):
        raise Conflict(f"Worker {worker_id} has stopped; it takes no batches anyway.")
    return redirect(url_for("operate.workers"), HTTPStatus.SEE_OTHER)


def _workers_page() -> dict[str, object]:
    farm = context()
    return {"workers": list_workers(farm.engine, farm.board, farm.settings.lease_seconds)}


def _queues_page() -> dict[str, object]:
    farm = context()
    found = list_queues(farm.engine, farm.settings.lease_seconds)
    return {"queues": [(queue, hints(queue, found, duration)) for queue in found]}


def _plots_page() -> dict[str, object]:
    hours = one_of("hours", PLOT_STEPS)
    farm, step = context(), TABLE_STEPS[hours]
    moments = farm.shared.get(
        ("metrics", hours, step), lambda _before: metrics(farm.engine, hours, step), kept_seconds(hours)
    )
    # The newest first, as tables are read from the top.
    return {"hours": hours, "step_seconds": 60 * PLOT_STEPS[hours], "moments": moments[::-1]}
