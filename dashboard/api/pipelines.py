"""The catalog: what may be named as ``pipeline``, and what may be added to it."""

from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response, jsonify

from dashboard.api.operations import describe
from dashboard.api.schemas.farm import Adapters, PipelineDocument, Pipelines
from dashboard.context import context
from farm.batch_sizes import find_batch_sizes
from farm.catalog import Pipeline
from farm.schedulers import SCHEDULERS
from farm.states import Stage

blueprint = Blueprint("api_pipelines", __name__)


@blueprint.get("/pipelines")
@describe("catalog", {200: Pipelines})
def index() -> Response:
    """All pipelines, with defaults and limits, and what fits each."""
    return jsonify({"pipelines": [_json(entry) for entry in context().catalog]})


@blueprint.get("/pipelines/<name>")
@describe("catalog", {200: PipelineDocument})
def show(name: str) -> Response:
    """One pipeline."""
    return jsonify(_json(context().catalog.get(name)))


@blueprint.get("/adapters")
@describe("catalog", {200: Adapters})
def adapters() -> Response:
    """LoRAs, textual inversions, ControlNets and IP-Adapters, with the pipelines that they fit; the schedulers."""
    found = {kind: [_adapter(entry) for entry in entries] for kind, entries in _adapters().items()}
    return jsonify({**found, "schedulers": [*SCHEDULERS]})


def _json(entry: Pipeline) -> dict[str, Any]:
    return {
        "name": entry.name,
        "default": entry.name == context().settings.pipeline,
        "has_refiner": entry.refiner is not None,
        "batch_size": _batch_size(entry),
        "max_width": entry.max_width,
        "max_height": entry.max_height,
        "max_num_inference_steps": entry.max_num_inference_steps,
        "max_guidance_scale": entry.max_guidance_scale,
        "defaults": {
            name: value
            for name, value in entry.defaults.model_dump(exclude_none=True).items()
            if value not in ({}, ()) and (name != "refiner_split" or entry.refiner is not None)
        },
        **{
            kind: [adapter.name for adapter in entries if adapter.fits(entry.name)]
            for kind, entries in _adapters().items()
        },
    }


def _batch_size(entry: Pipeline) -> int:
    """Images in one call of the entry's default size."""
    defaults = entry.defaults
    return find_batch_sizes(context().engine, entry).of_call(Stage.BASE, defaults.width, defaults.height)


def _adapter(entry: Any) -> dict[str, Any]:
    fitting = [pipeline.name for pipeline in context().catalog if entry.fits(pipeline.name)]
    return {"name": entry.name, "pipelines": fitting}


def _adapters() -> dict[str, Iterable[Any]]:
    catalog = context().catalog
    return {
        "loras": [*catalog.loras],
        "textual_inversions": [*catalog.textual_inversions],
        "controlnets": [*catalog.controlnets],
        "ip_adapters": [*catalog.ip_adapters],
    }
