"""The trained parts as diffusers lays them out, in half precision: what ships with the farm."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from farm.schedule import STEPS_OFFSET, TRAIN_TIMESTEPS
from tools.train_demo.models import Text


def pack(
    directory: Path, text: Text, vae: AutoencoderKL, base: UNet2DConditionModel, refiner: UNet2DConditionModel
) -> int:
    """Write ``directory/base`` and ``directory/refiner``; returns their size in bytes."""
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=TRAIN_TIMESTEPS,
        prediction_type="epsilon",
        timestep_spacing="leading",
        steps_offset=STEPS_OFFSET,
    )
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text.encoder,
        text_encoder_2=text.encoder_2,
        tokenizer=text.tokenizer,
        tokenizer_2=text.tokenizer_2,
        unet=base,
        scheduler=scheduler,
    ).to(dtype=torch.float16).save_pretrained(directory / "base", safe_serialization=True)
    StableDiffusionXLImg2ImgPipeline(
        vae=vae,
        text_encoder=None,
        text_encoder_2=text.encoder_2,
        tokenizer=None,
        tokenizer_2=text.tokenizer_2,
        unet=refiner,
        scheduler=scheduler,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    ).to(dtype=torch.float16).save_pretrained(directory / "refiner", safe_serialization=True)
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
