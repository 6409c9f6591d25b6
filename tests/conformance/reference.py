"""SDXL by plain diffusers, in one process, as its documentation shows it. Imports nothing of the farm.

https://huggingface.co/docs/diffusers/using-diffusers/sdxl: text to image, image to image, inpainting, "Base to refiner
model" (ensemble of expert denoisers, and image to image over finished latents).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

MakeScheduler = Callable[[Any], Any]
"""A scheduler from the checkpoint's scheduler's config."""


@cache
def load(
    kind: type,
    path: Path,
    watermark: bool | None,
    controlnet: tuple[Any, ...] = (),
    adapt: Callable[[Any], None] | None = None,
) -> Any:
    """A pipeline, with these ControlNets and whatever ``adapt`` puts on it."""
    components = {"controlnet": controlnet[0] if len(controlnet) == 1 else list(controlnet)} if controlnet else {}
    pipe = load_anew(kind, path, watermark, **components)
    if adapt is not None:
        adapt(pipe)
    return pipe


def load_anew(
    kind: Any, path: Path, watermark: bool | None, dtype: torch.dtype = torch.float32, **components: Any
) -> Any:
    pipe = kind.from_pretrained(path, dtype=dtype, use_safetensors=True, add_watermarker=watermark, **components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


CONTROLLED = {
    StableDiffusionXLPipeline: StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline: StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline: StableDiffusionXLControlNetInpaintPipeline,
}


@contextmanager
def scheduled(pipe: Any, make_scheduler: MakeScheduler | None) -> Iterator[Any]:
    """``pipe.scheduler = Class.from_config(pipe.scheduler.config)``, and back again."""
    own = pipe.scheduler
    if make_scheduler is not None:
        pipe.scheduler = make_scheduler(own.config)
    yield pipe
    pipe.scheduler = own


def generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def render(
    checkpoint: Path,
    *,
    seed: int,
    width: int = 256,
    height: int = 256,
    image: Image.Image | None = None,
    mask_image: Image.Image | None = None,
    strength: float | None = None,
    padding_mask_crop: int | None = None,
    split: float | None = None,
    refiner_strength: float | None = None,
    refiner_steps: int | None = None,
    schedule: dict[str, Any],
    scores: dict[str, float] | None = None,
    scheduler: MakeScheduler | None = None,
    adapt_base: Callable[[Any], None] | None = None,
    adapt_refiner: Callable[[Any], None] | None = None,
    controlnet: tuple[Any, ...] = (),
    control: dict[str, Any] | None = None,
    of_base: dict[str, Any] | None = None,
    watermark: bool | None = None,
    output_type: str = "pil",
    **arguments: Any,
) -> Any:
    """One picture. ``schedule`` is num_inference_steps, timesteps or sigmas; ``arguments`` go to both pipelines."""
    size = {"width": width, "height": height}
    if mask_image is not None:
        kind: type = StableDiffusionXLInpaintPipeline
        first: dict[str, Any] = {**size, "image": image, "mask_image": mask_image, "strength": strength}
        if padding_mask_crop is not None:
            first["padding_mask_crop"] = padding_mask_crop
    elif image is not None:
        kind = StableDiffusionXLImg2ImgPipeline
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        first = {"image": image, "strength": strength}
    else:
        kind = StableDiffusionXLPipeline
        first = size
    if controlnet:
        kind, first = CONTROLLED[kind], {**size, **first, **(control or {})}
    base = load(kind, checkpoint / "base", watermark, controlnet, adapt_base)
    first |= of_base or {}
    if split is None and refiner_strength is None:
        with scheduled(base, scheduler):
            return base(**arguments, **schedule, **first, output_type=output_type, generator=generator(seed)).images[0]
    with scheduled(base, scheduler):
        latents = base(
            **arguments, **schedule, **first, denoising_end=split, output_type="latent", generator=generator(seed)
        ).images
    scores = scores or {}
    if mask_image is None:
        kind = StableDiffusionXLImg2ImgPipeline
        second: dict[str, Any] = {"image": latents}
    else:
        kind = StableDiffusionXLInpaintPipeline
        second = {**size, "image": latents, "mask_image": mask_image}
    if split is not None:
        second |= {**schedule, "denoising_start": split}
    else:
        second |= {"num_inference_steps": refiner_steps, "strength": refiner_strength}
    refiner = load(kind, checkpoint / "refiner", watermark, adapt=adapt_refiner)
    with scheduled(refiner, scheduler):
        return refiner(**arguments, **scores, **second, output_type=output_type, generator=generator(seed)).images[0]
