"""What A1111's clients ask for, and what that is in the farm's words."""

from typing import Any

from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from dashboard.compatible.bodies import pipeline_called, read_base64, refusal
from dashboard.compatible.inputs import opened, stored, stored_bytes, web_ui_mask
from dashboard.compatible.rendering import MAX_IMAGES, Wish
from dashboard.compatible.web_ui_prompts import read_prompt
from dashboard.compatible.web_ui_samplers import sampler_fields
from farm.catalog import Pipeline

DIALECT = "a1111"
#: How strongly a picture is changed where nobody says it.
STRENGTH = 0.75
#: Fields that are not carried over, with the values by which they say nothing. Other values are refused.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "enable_hr": (False,),
    "restore_faces": (False,),
    "tiling": (False,),
    "styles": ([],),
    "script_name": ("", "None"),
    "subseed_strength": (0,),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "s_churn": (0,),
    "s_noise": (1,),
    "initial_noise_multiplier": (1,),
    "include_init_images": (False,),
    "firstpass_image": ("",),
    "latent_mask": ("",),
}
#: Fields that say nothing without those above, or nothing about the picture.
WITHOUT_EFFECT = (
    "alwayson_scripts",
    "comments",
    "disable_extra_networks",
    "do_not_save_grid",
    "do_not_save_samples",
    "firstphase_height",
    "firstphase_width",
    "force_task_id",
    "hr_checkpoint_name",
    "hr_negative_prompt",
    "hr_prompt",
    "hr_resize_x",
    "hr_resize_y",
    "hr_sampler_name",
    "hr_scale",
    "hr_scheduler",
    "hr_second_pass_steps",
    "hr_upscaler",
    "image_cfg_scale",
    "infotext",
    "override_settings_restore_afterwards",
    "s_min_uncond",
    "s_tmax",
    "s_tmin",
    "save_images",
    "script_args",
    "subseed",
)
#: Settings that a request may override, and what their names begin with where they do not concern the picture.
_SETTINGS = ("sd_model_checkpoint", "CLIP_stop_at_last_layers", "samples_format")
_HARMLESS_SETTINGS = (
    "save_",
    "samples_",
    "grid_",
    "show_",
    "live_preview",
    "enable_pnginfo",
    "do_not_",
    "return_",
    "add_",
)
_FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}
#: What refusals call the farm's fields.
_NAMES = {
    "pipeline": "sd_model_checkpoint",
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "scheduler_options": "scheduler",
    "scheduler": "sampler_name",
    "strength": "denoising_strength",
    "refiner_split": "refiner_switch_at",
    "image": "init_images",
    "mask_image": "mask",
    "padding_mask_crop": "inpaint_full_res_padding",
    "loras": "prompt",
    "images_per_prompt": "batch_size",
    "job": "batch_size",
    "clip_skip": "CLIP_stop_at_last_layers",
}


class TextBody(BaseModel):
    """txt2img. Null is as good as nothing."""

    model_config = ConfigDict(extra="allow")

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int = Field(default=1, ge=1)
    n_iter: int = Field(default=1, ge=1)
    sampler_name: str | None = None
    sampler_index: str | None = None
    """The former name of ``sampler_name``."""
    scheduler: str | None = None
    eta: float | None = None
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict)
    send_images: bool = True
    denoising_strength: float | None = None

    @property
    def ignored(self) -> list[str]:
        """Fields that nobody here knows."""
        said = {name for name, value in (self.model_extra or {}).items() if value is not None}
        return sorted(said - NEUTRAL.keys() - set(WITHOUT_EFFECT))


class ImageBody(TextBody):
    """img2img."""

    init_images: list[str] = Field(default_factory=list)
    resize_mode: int = 0
    mask: str | None = None
    mask_blur: float = Field(default=4, ge=0, le=256)
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: bool = False


def wish_of(body: TextBody, checkpoint: str) -> Wish:
    """The body in the farm's words; ``checkpoint`` is what the caller's settings say.

    Raises UnknownModelError, and InvalidSubmissionError for what is not possible here.
    """
    _refuse_what_is_not_carried_over(body)
    settings = body.override_settings
    pipeline = pipeline_of(str(settings.get("sd_model_checkpoint") or checkpoint))
    fields: dict[str, Any] = {
        "images_per_prompt": _image_count(body),
        "num_inference_steps": body.steps,
        "guidance_scale": body.cfg_scale,
        "width": body.width,
        "height": body.height,
        **sampler_fields(body.sampler_name or body.sampler_index, body.scheduler, body.eta),
        **_settings_fields(settings),
    }
    fields = {name: value for name, value in fields.items() if value is not None} | _refiner_fields(body, pipeline)
    if body.seed >= 0:
        fields["seed"] = body.seed
    prompt = read_prompt("prompt", body.prompt)
    negative = read_prompt("negative_prompt", body.negative_prompt)
    weighted = prompt.needs_compel or negative.needs_compel
    if weighted:
        fields["prompt_syntax"] = "compel"
    if negative.text.strip():
        # None of it is not an empty one; A1111 has zeros for it with SDXL, as diffusers has.
        fields["negative_prompt"] = negative.in_compel() if weighted else negative.text.strip()
    if prompt.loras:
        own = {name for name, _ in prompt.loras}
        # What a pipeline adds by itself belongs to what is its checkpoint here.
        added = [use.model_dump() for use in pipeline.defaults.loras if use.name not in own]
        fields["loras"] = added + [{"name": name, "weight": weight} for name, weight in prompt.loras]
    if isinstance(body, ImageBody):
        fields |= _picture_fields(body)
    return Wish(DIALECT, pipeline, prompt.in_compel() if weighted else prompt.text.strip(), fields, _NAMES)


def pipeline_of(checkpoint: str) -> Pipeline:
    """The pipeline that a checkpoint's name or title stands for; raises UnknownModelError."""
    return pipeline_called(checkpoint.partition(" [")[0].strip().removesuffix(".safetensors"))


def _image_count(body: TextBody) -> int:
    count = body.batch_size * body.n_iter
    if count > MAX_IMAGES:
        raise refusal("n_iter", f"times batch_size are {count:,} images, and at most {MAX_IMAGES} are taken at once")
    return count


def _refuse_what_is_not_carried_over(body: TextBody) -> None:
    extra = body.model_extra or {}
    for name, neutral in NEUTRAL.items():
        if extra.get(name) not in (None, *neutral):
            raise refusal(name, "is not possible here; leave it out")
    scripts = extra.get("alwayson_scripts") or {}
    for name, script in scripts.items() if isinstance(scripts, dict) else ():
        arguments = script.get("args") if isinstance(script, dict) else script
        if isinstance(arguments, list) and arguments and arguments[0] is False:
            continue
        if arguments:
            raise refusal("alwayson_scripts", f"{name[:60]} is not possible here; leave it out, or switch it off")


def _settings_fields(settings: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in _SETTINGS and not name.startswith(_HARMLESS_SETTINGS):
            raise refusal("override_settings", f"{name[:60]} is not possible here; leave it out")
        if name == "CLIP_stop_at_last_layers":
            if not isinstance(value, int) or not 1 <= value <= 11:
                raise refusal(name, "must be a whole number from 1 to 11")
            # diffusers counts the layers that are left out, A1111 those from the end.
            fields["clip_skip"] = value - 1 or None
        elif name == "samples_format":
            if value not in _FORMATS:
                raise refusal(name, f"must be one of {', '.join(_FORMATS)}")
            fields["output_format"] = _FORMATS[value]
    return fields


def _refiner_fields(body: TextBody, pipeline: Pipeline) -> dict[str, Any]:
    if body.refiner_checkpoint == "None":
        return {"refiner_split": None}
    if body.refiner_checkpoint and pipeline_of(body.refiner_checkpoint) is not pipeline:
        raise refusal("refiner_checkpoint", f"must be {pipeline.name}, whose refiner it is; or None")
    if body.refiner_switch_at is None:
        return {}
    return {"refiner_split": body.refiner_switch_at if body.refiner_switch_at < 1 else None}


def _picture_fields(body: ImageBody) -> dict[str, Any]:
    if len(body.init_images) != 1:
        raise refusal("init_images", f"are {len(body.init_images)}; send one, as base64")
    if body.resize_mode not in (0, 1):
        raise refusal("resize_mode", "must be 0 (just resize) or 1 (crop and resize)")
    data = read_base64("init_images", body.init_images[0])
    picture = opened("init_images", data)
    mask = _mask(body, picture.size)
    if body.resize_mode == 1 and body.width and body.height:
        size = body.width, body.height
        image = stored(ImageOps.fit(picture, size, Image.Resampling.LANCZOS))
        mask = None if mask is None else ImageOps.fit(mask, size, Image.Resampling.LANCZOS)
    else:
        image = stored_bytes(data)
    fields: dict[str, Any] = {"image": image}
    fields["strength"] = STRENGTH if body.denoising_strength is None else body.denoising_strength
    if mask is not None:
        fields["mask_image"] = stored(mask)
        if body.inpaint_full_res:
            # diffusers pastes what it has painted into the picture, and no refiner can follow that.
            fields |= {"padding_mask_crop": body.inpaint_full_res_padding, "refiner_split": None}
    return fields


def _mask(body: ImageBody, size: tuple[int, int]) -> Image.Image | None:
    if not body.mask:
        return None
    if body.inpainting_fill not in (0, 1):
        raise refusal("inpainting_fill", "must be 1 (original); 0 is taken for it")
    mask = web_ui_mask(read_base64("mask", body.mask), size, inverted=body.inpainting_mask_invert, blur=body.mask_blur)
    if mask.getbbox() is None:
        raise refusal("mask", "is black; make white what is to be painted anew")
    return mask
