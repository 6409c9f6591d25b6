"""How many devices would do what waits in time, for autoscalers."""

from flask import Blueprint, Response, jsonify

from dashboard.api.operations import describe, read_query
from dashboard.api.schemas.autoscaling import AutoscalingDocument, AutoscalingQuery
from dashboard.context import context
from dashboard.queries.demand import demand

blueprint = Blueprint("api_autoscaling", __name__)


@blueprint.get("/autoscaling")
@describe("workers", {200: AutoscalingDocument}, query=AutoscalingQuery, problems=[404])
def show() -> Response:
    """How many devices a pipeline's stage, or both for workers that serve both, could use now.

    Nothing waits: none. Otherwise as many as finish what waits in ``seconds``, and no more than there are batches.
    """
    asked = read_query(AutoscalingQuery)
    farm = context()
    pipeline = farm.catalog.get(asked.pipeline or farm.settings.pipeline).name
    target = asked.seconds or farm.settings.autoscale_seconds
    found = demand(farm.engine, pipeline, asked.stage.stages, target, farm.settings.lease_seconds)
    return jsonify(
        {
            "pipeline": pipeline,
            "stage": asked.stage,
            "devices": found.devices,
            "workers": found.workers,
            "batches": found.batches,
            "waiting_seconds": found.waiting_seconds,
            "target_seconds": target,
        }
    )
