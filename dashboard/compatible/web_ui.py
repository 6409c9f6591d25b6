"""A1111's web UI for Stable Diffusion as an API, so that the programs which speak it can use the farm."""

import base64
import json
from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import select

from dashboard.api.bodies import read_json_object
from dashboard.auth import identity
from dashboard.compatible.bodies import read_body
from dashboard.compatible.rendering import Wish, begin, place, read_picture
from dashboard.compatible.web_ui_bodies import DIALECT, ImageBody, TextBody, pipeline_of, wish_of
from dashboard.compatible.web_ui_samplers import ALIASES, SCHEDULES
from dashboard.context import context
from dashboard.queries.images import ImageView
from dashboard.queries.jobs import get_job
from farm.control import cancel_job
from farm.models import Job
from farm.schedulers import SCHEDULERS
from farm.spec import ImageParameters
from farm.web_ui import web_ui_text
from producer.presets import presets_of, save_preset

blueprint = Blueprint("web_ui", __name__)

Json = dict[str, Any]

#: The preset in which the checkpoint of one's settings is kept.
CHECKPOINT = "sd_model_checkpoint"


@blueprint.post("/txt2img")
def text_to_image() -> Response:
    """Pictures from a prompt."""
    return _render(TextBody)


@blueprint.post("/img2img")
def image_to_image() -> Response:
    """Pictures from a picture."""
    return _render(ImageBody)


@blueprint.get("/options")
def options() -> Response:
    """The settings that there are here."""
    return jsonify({CHECKPOINT: _checkpoint(), "samples_format": "png", "CLIP_stop_at_last_layers": 1})


@blueprint.post("/options")
def set_options() -> Response:
    """Set the checkpoint of whoever asks. Others are named as ignored."""
    body = read_json_object()
    if body.get(CHECKPOINT) is not None:
        pipeline = pipeline_of(str(body[CHECKPOINT]))
        save_preset(context().engine, identity().name, CHECKPOINT, {"pipeline": pipeline.name})
    return jsonify({"ignored": sorted(body.keys() - {CHECKPOINT})})


@blueprint.get("/samplers")
def samplers() -> Response:
    """The farm's schedulers, as A1111 calls them."""
    return jsonify(
        [
            {"name": entry.label, "aliases": [entry.name, *ALIASES.get(entry.name, ())], "options": {}}
            for entry in SCHEDULERS.values()
        ]
    )


@blueprint.get("/schedulers")
def schedulers() -> Response:
    """The schedule types."""
    return jsonify(
        [
            {"name": name, "label": name.title(), "aliases": None, "default_rho": -1, "need_inner_model": False}
            for name in SCHEDULES
        ]
    )


@blueprint.get("/sd-models")
def checkpoints() -> Response:
    """The catalog's pipelines."""
    return jsonify(
        [
            {
                "title": entry.name,
                "model_name": entry.name,
                "hash": None,
                "sha256": None,
                "filename": entry.name,
                "config": None,
            }
            for entry in context().catalog
        ]
    )


@blueprint.get("/loras")
def loras() -> Response:
    """The catalog's LoRAs."""
    return jsonify(
        [{"name": lora.name, "alias": lora.name, "path": "", "metadata": {}} for lora in context().catalog.loras]
    )


@blueprint.get("/scripts")
def scripts() -> Response:
    """There are none; clients ask for them when they begin."""
    return jsonify({"txt2img": [], "img2img": []})


@blueprint.get("/upscalers")
def upscalers() -> Response:
    """The one that does nothing."""
    return jsonify([{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}])


@blueprint.get("/latent-upscale-modes")
@blueprint.get("/hypernetworks")
@blueprint.get("/sd-vae")
@blueprint.get("/prompt-styles")
@blueprint.get("/face-restorers")
def nothing() -> Response:
    """Lists of what the farm does not have; clients ask for them when they begin."""
    return jsonify([])


@blueprint.get("/progress")
def progress() -> Response:
    """How far the oldest unfinished request of whoever asks is."""
    farm = context()
    job_ids = _unfinished()
    state: Json = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": "",
        "job_count": len(job_ids),
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    }
    if not job_ids:
        return jsonify({"progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": None, "textinfo": None})
    view = get_job(farm.engine, farm.board, job_ids[0])
    steps = view.job.spec.get("num_inference_steps", farm.catalog.get(view.job.pipeline).defaults.num_inference_steps)
    state |= {
        "job": view.job.name,
        "job_timestamp": view.job.created_at.strftime("%Y%m%d%H%M%S"),
        "sampling_step": int(view.progress * steps),
        "sampling_steps": steps,
    }
    preview = None
    if request.args.get("skip_current_image", "false").lower() != "true":
        farm.board.watch(view.job.id)
        preview = farm.board.read_preview(view.job.id, min(view.job.images_completed, view.job.image_count - 1))
    return jsonify(
        {
            "progress": view.progress,
            "eta_relative": view.seconds_left or 0.0,
            "state": state,
            "current_image": base64.b64encode(preview).decode("ascii") if preview else None,
            "textinfo": None,
        }
    )


@blueprint.post("/interrupt")
def interrupt() -> Response:
    """Cancel the unfinished requests of whoever asks: they are answered with what is finished."""
    for job_id in _unfinished():
        cancel_job(context().engine, job_id, identity().name)
    return jsonify({})


def _render(kind: type[TextBody]) -> Response:
    sent = read_json_object()
    body = read_body(kind, sent)
    wish = wish_of(body, _checkpoint())
    with place():
        rendering = begin(wish)
        views = rendering.wait(or_cancelled=True)
    images = [base64.b64encode(read_picture(view)).decode("ascii") for view in views] if body.send_images else []
    # Pictures that were sent are not sent back.
    parameters = {name: value for name, value in sent.items() if name not in ("init_images", "mask")}
    response = jsonify({"images": images, "parameters": parameters, "info": json.dumps(_info(body, wish, views))})
    response.headers["X-Farm-Job"] = str(rendering.job_id)
    return response


def _info(body: TextBody, wish: Wish, views: list[ImageView]) -> Json:
    seeds = [view.image.seed for view in views]
    told = [
        ImageParameters.model_validate({name: value for name, value in view.parameters.items() if value is not None})
        for view in views
    ]
    first = told[0] if told else None
    return {
        "prompt": body.prompt,
        "all_prompts": [body.prompt] * len(views),
        "negative_prompt": body.negative_prompt,
        "all_negative_prompts": [body.negative_prompt] * len(views),
        "seed": seeds[0] if seeds else body.seed,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * len(views),
        "subseed_strength": 0,
        "width": first and first.width,
        "height": first and first.height,
        "sampler_name": first and first.scheduler_entry.label,
        "cfg_scale": first and first.guidance_scale,
        "steps": first and first.num_inference_steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": wish.pipeline.name,
        "sd_model_hash": "",
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first and first.strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [web_ui_text(one) for one in told],
        "styles": [],
        "job_timestamp": "0",
        "clip_skip": (first.clip_skip or 0) + 1 if first else 1,
        "is_using_inpainting_conditioning": False,
        "ignored": body.ignored,
    }


def _checkpoint() -> str:
    """The pipeline that the settings of whoever asks name."""
    owner = identity().name
    mine = (one for one in presets_of(context().engine, owner) if one.owner == owner and one.name == CHECKPOINT)
    preset = next(mine, None)
    return context().settings.pipeline if preset is None else str(preset.fields["pipeline"])


def _unfinished() -> list[int]:
    """Jobs of whoever asks that were asked for here, the oldest first."""
    query = (
        select(Job.id)
        .where(Job.owner == identity().name, Job.finished_at.is_(None), Job.name.startswith(f"{DIALECT}: "))
        .order_by(Job.id)
    )
    with context().engine.connect() as connection:
        return list(connection.scalars(query))
