"""What the documentation of SDXL in diffusers shows, in one process. Imports nothing of ours.

https://huggingface.co/docs/diffusers/using-diffusers/sdxl: "Base to refiner model" as an ensemble of expert denoisers.
"""

from functools import cache
from pathlib import Path

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image


@cache
def pipelines(checkpoint: Path) -> tuple[StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline]:
    base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", dtype=torch.float32, use_safetensors=True)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
        checkpoint / "refiner",
        text_encoder_2=base.text_encoder_2,
        vae=base.vae,
        dtype=torch.float32,
        use_safetensors=True,
    )
    base.set_progress_bar_config(disable=True)
    refiner.set_progress_bar_config(disable=True)
    return base, refiner


def render(
    checkpoint: Path,
    prompt: str,
    *,
    seed: int,
    steps: int,
    split: float | None,
    width: int = 256,
    height: int = 256,
    guidance_scale: float = 5.0,
    negative_prompt: str | None = None,
) -> Image.Image:
    """One picture by plain diffusers."""
    base, refiner = pipelines(checkpoint)
    if split is None:
        return base(
            prompt=prompt,
            negative_prompt=negative_prompt,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images[0]
    image = base(
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        denoising_end=split,
        output_type="latent",
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images
    return refiner(
        prompt=prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        denoising_start=split,
        image=image,
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]
