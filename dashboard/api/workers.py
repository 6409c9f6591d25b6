"""Workers: who lives, on which device, and what they do now; draining them."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify
from sqlalchemy import Engine

from dashboard.api.operations import describe
from dashboard.api.problems import problem
from dashboard.api.schemas.farm import WorkerDocument, Workers
from dashboard.auth import identity, requires
from dashboard.context import context
from dashboard.queries.workers import WorkerView, get_worker, list_workers
from farm.roles import Role
from farm.workers import drain_worker, resume_worker

blueprint = Blueprint("api_workers", __name__)


@blueprint.get("/workers")
@describe("workers", {200: Workers})
def index() -> Response:
    """All workers of the last hour, the living first."""
    farm = context()
    views = list_workers(farm.engine, farm.board, farm.settings.lease_seconds)
    return jsonify({"workers": [_worker_json(view) for view in views]})


@blueprint.post("/workers/<path:worker_id>/drain")
@describe("workers", {200: WorkerDocument})
@requires(Role.OPERATOR)
def drain(worker_id: str) -> Response:
    """Let a worker take no further batch; what it holds it finishes."""
    return _act(worker_id, drain_worker)


@blueprint.post("/workers/<path:worker_id>/resume")
@describe("workers", {200: WorkerDocument})
@requires(Role.OPERATOR)
def resume(worker_id: str) -> Response:
    """Let a drained worker take batches again."""
    return _act(worker_id, resume_worker)


def _act(worker_id: str, act: Callable[[Engine, str, str], bool]) -> Response:
    farm = context()
    acted = act(farm.engine, worker_id, identity().name)
    view = get_worker(farm.engine, farm.board, farm.settings.lease_seconds, worker_id)
    if not acted or view is None:
        return problem(HTTPStatus.CONFLICT, f"Worker {worker_id} has stopped; it takes no batches anyway.")
    return jsonify(_worker_json(view))


def _worker_json(view: WorkerView) -> dict[str, Any]:
    worker = view.worker
    return {
        "id": worker.id,
        "hostname": worker.hostname,
        "process_id": worker.process_id,
        "device": worker.device,
        "device_name": worker.device_name,
        "pipeline": worker.pipeline,
        "stages": worker.stages,
        "tags": worker.tags,
        "holds": worker.holds,
        "state": view.state,
        "alive": view.alive,
        "stopped_because": worker.stopped_because,
        "draining": worker.draining_at is not None,
        "heartbeat_age_seconds": view.heartbeat_age_seconds,
        "memory_used": worker.memory_used,
        "memory_total": worker.memory_total,
        "utilisation": worker.utilisation,
        "restarts": worker.restarts,
        "images_completed": worker.images_completed,
        "pictures_per_hour": view.pictures_per_hour,
        "failures_last_hour": view.last_hour.failures,
        "started_at": worker.started_at.isoformat(),
        "batches": [
            {
                "id": activity.batch_id,
                "job_id": activity.job_id,
                "stage": activity.stage.value,
                "image_count": activity.image_count,
                "step": activity.progress.step if activity.progress else None,
                "steps": activity.progress.steps if activity.progress else None,
            }
            for activity in view.activities
        ],
    }
