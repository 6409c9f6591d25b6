"""The catalog: what may be named as ``pipeline``."""

from flask import Blueprint, Response, jsonify

from dashboard.context import context

blueprint = Blueprint("api_pipelines", __name__)


@blueprint.get("/pipelines")
def index() -> Response:
    """All entries, with defaults and limits."""
    farm = context()
    entries = [
        {
            "name": entry.name,
            "default": entry.name == farm.settings.pipeline,
            "has_refiner": entry.refiner is not None,
            "batch_size": entry.batch_size,
            "max_width": entry.max_width,
            "max_height": entry.max_height,
            "max_num_inference_steps": entry.max_num_inference_steps,
            "max_guidance_scale": entry.max_guidance_scale,
            "defaults": {
                name: value
                for name, value in entry.defaults.model_dump(exclude_none=True).items()
                if value not in ({}, ()) and (name != "refiner_split" or entry.refiner is not None)
            },
        }
        for entry in farm.catalog
    ]
    return jsonify({"pipelines": entries})
