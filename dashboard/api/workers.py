"""Workers: who lives, on which device, and what they do now."""

from typing import Any

from flask import Blueprint, Response, jsonify

from dashboard.context import context
from dashboard.queries.workers import WorkerView, list_workers

blueprint = Blueprint("api_workers", __name__)


@blueprint.get("/workers")
def index() -> Response:
    """All workers of the last hour, the living first."""
    farm = context()
    views = list_workers(farm.engine, farm.board, farm.settings.lease_seconds)
    return jsonify({"workers": [_worker_json(view) for view in views]})


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
        "alive": view.alive,
        "heartbeat_age_seconds": view.heartbeat_age_seconds,
        "images_completed": worker.images_completed,
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
