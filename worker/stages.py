"""The heart: pictures from parameters, as pure functions over a loaded pipeline.

Nothing here knows a queue or a database. The calls are those of diffusers' SDXL documentation, so a batch of one
gives its pictures bit for bit (https://huggingface.co/docs/diffusers/using-diffusers/sdxl, "Base to refiner model").
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from farm.errors import FarmError
from farm.spec import ImageParameters
from worker.pipelines import LoadedPipeline

OnStep = Callable[[int, int], None]
"""Called after each denoising step with the steps done and all steps of the stage; may raise to stop."""


class BrokenPictureError(FarmError):
    """The model gave NaN or infinity where a picture should be."""


def render_base(pipeline: LoadedPipeline, images: Sequence[ImageParameters], on_step: OnStep) -> torch.Tensor:
    """The base's share of the schedule: latents (n, 4, height / 8, width / 8), in the pipeline's dtype, on the CPU."""
    latents = _base(pipeline)(
        **_arguments(images, refined=True),
        **_size(images),
        denoising_end=images[0].refiner_split,
        output_type="latent",
        **_steps(on_step),
    ).images
    return _finite(latents).cpu()


def render_refiner(
    pipeline: LoadedPipeline, images: Sequence[ImageParameters], latents: torch.Tensor, on_step: OnStep
) -> list[Image.Image]:
    """The refiner's share of the schedule, from the base's latents (n, 4, height / 8, width / 8) to pictures."""
    if pipeline.refiner is None:
        raise ValueError(f"pipeline {pipeline.entry.name} was loaded without its refiner")
    refiner = _mended(pipeline.refiner)
    arguments = _arguments(images, refined=True)
    expected = (len(images), 4, images[0].height // 8, images[0].width // 8)
    if tuple(latents.shape) != expected:
        raise ValueError(f"latents of shape {tuple(latents.shape)} for images that need {expected}")
    decoded = refiner(
        **arguments,
        denoising_start=images[0].refiner_split,
        image=_finite(latents).to(pipeline.device),
        output_type="pt",
        **_steps(on_step),
    ).images
    return _pictures(refiner, decoded)


def render_base_only(pipeline: LoadedPipeline, images: Sequence[ImageParameters], on_step: OnStep) -> list[Image.Image]:
    """The whole schedule by the base, to pictures."""
    base = _base(pipeline)
    decoded = base(**_arguments(images, refined=False), **_size(images), output_type="pt", **_steps(on_step)).images
    return _pictures(base, decoded)


def _base(pipeline: LoadedPipeline) -> Any:
    if pipeline.base is None:
        raise ValueError(f"pipeline {pipeline.entry.name} was loaded without its base")
    return _mended(pipeline.base)


def _mended(pipe: Any) -> Any:
    """The pipeline, with its VAE back in the dtype it was loaded in.

    diffusers casts a float16 VAE to float32 for each decoding. When that decoding fails (out of memory) the VAE
    stays in float32, and every later call would fail over the mixture.
    """
    if pipe.vae.dtype != pipe.unet.dtype:
        pipe.vae.to(pipe.unet.dtype)
    return pipe


def _arguments(images: Sequence[ImageParameters], *, refined: bool) -> dict[str, Any]:
    """What both pipelines' calls are given, for images that share their batch's parameters.

    Raises ValueError for images that do not, and for a split that does not fit the stage: without one diffusers
    would quietly run another schedule.
    """
    if not images:
        raise ValueError("no images to render")
    shared = images[0].shared()
    if (shared.refiner_split is not None) != refined:
        raise ValueError(f"refiner_split {shared.refiner_split} does not fit this stage")
    without_negative = images[0].negative_prompt is None
    for image in images:
        if image.shared() != shared or (image.negative_prompt is None) != without_negative:
            raise ValueError("these images cannot share a batch: their parameters differ")
    return {
        "prompt": [image.prompt for image in images],
        # None is not "": diffusers gives it an unconditional embedding of zeros.
        "negative_prompt": None if without_negative else [image.negative_prompt for image in images],
        "num_inference_steps": shared.num_inference_steps,
        "guidance_scale": shared.guidance_scale,
        # One generator per image, on the CPU, seeded anew in each stage: a picture depends neither on the device's
        # generator nor on its neighbours in the batch.
        "generator": [torch.Generator("cpu").manual_seed(image.seed) for image in images],
    }


def _size(images: Sequence[ImageParameters]) -> dict[str, int]:
    """What the base alone is told; the refiner's size is that of its latents."""
    return {"width": images[0].width, "height": images[0].height}


def _steps(on_step: OnStep) -> dict[str, Any]:
    def callback(pipe: Any, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, pipe.num_timesteps)
        return tensors

    return {"callback_on_step_end": callback}


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(tensor).all():
        raise BrokenPictureError(
            "The model gave NaN or infinity. With float16 the cause is mostly the VAE: use one made for float16, "
            "or bfloat16."
        )
    return tensor


def _pictures(pipe: Any, decoded: torch.Tensor) -> list[Image.Image]:
    """Decoded pictures (n, 3, height, width) in 0..1 as diffusers' own processor converts them."""
    processor = pipe.image_processor
    pictures: list[Image.Image] = processor.numpy_to_pil(processor.pt_to_numpy(_finite(decoded)))
    return pictures
