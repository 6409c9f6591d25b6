"""Queues: how much waits, how long it will take, and what holds it up; the past as numbers for plots."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from dashboard.api.operations import describe, read_query
from dashboard.api.schemas.farm import Metrics, MetricsQuery, Queues
from dashboard.arguments import one_of
from dashboard.context import context
from dashboard.hints import hints
from dashboard.pages.filters import duration
from dashboard.queries.metrics import PLOT_STEPS, Moment, kept_seconds, metrics
from dashboard.queries.queues import QueueView, list_queues
from farm.states import Stage

blueprint = Blueprint("api_queues", __name__)


@blueprint.get("/queues")
@describe("workers", {200: Queues})
def index() -> Response:
    """All queues that have work or a live worker."""
    farm = context()
    queues = list_queues(farm.engine, farm.settings.lease_seconds)
    return jsonify({"queues": [{**_queue_json(queue), "hints": hints(queue, queues, duration)} for queue in queues]})


@blueprint.get("/metrics")
@describe("workers", {200: Metrics}, query=MetricsQuery)
def past() -> Response:
    """The last hour, day or week (``hours``), as one list per series over the times in ``start``."""
    read_query(MetricsQuery)
    hours = one_of("hours", PLOT_STEPS) if request.args.get("hours") else next(iter(PLOT_STEPS))
    step = PLOT_STEPS[hours]
    farm = context()
    moments = farm.shared.get(
        ("metrics", hours, step), lambda _before: metrics(farm.engine, hours, step), kept_seconds(hours)
    )
    return jsonify(
        {
            "hours": hours,
            "step_seconds": 60 * step,
            "start": [int(moment.start.timestamp()) for moment in moments],
            "pictures_per_minute": [moment.pictures_per_minute for moment in moments],
            "waiting": {stage.value: [moment.waiting[stage] for moment in moments] for stage in Stage},
            "seconds_per_image": {stage.value: _durations(moments, stage) for stage in Stage},
            "failures": [moment.failures for moment in moments],
        }
    )


def _durations(moments: list[Moment], stage: Stage) -> list[float | None]:
    return [moment.seconds_per_image[stage] for moment in moments]


def _queue_json(queue: QueueView) -> dict[str, Any]:
    return {
        "name": queue.name,
        "pipeline": queue.pipeline,
        "stage": queue.stage.value,
        "waiting": queue.waiting,
        "waiting_images": queue.waiting_images,
        "running": queue.running,
        "oldest_seconds": queue.oldest_seconds,
        "workers": queue.workers,
        "workers_idle": queue.idle,
        "workers_drained": queue.drained,
        "seconds_per_image": queue.seconds_per_image,
        "seconds_to_empty": queue.seconds_to_empty,
        "paused_jobs": queue.paused_jobs,
        "held_jobs": queue.held_jobs,
    }
