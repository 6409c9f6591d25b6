"""Latents to pictures: what diffusers' pipelines do at their end, by a VAE that keeps the dtype in which it decodes.

SDXL's own VAE overflows in float16, so diffusers casts it to float32 before each decoding, and back after it. Here it
is cast once. Pictures are decoded one by one: one fills a device, and a batch would take several times the memory.
"""

import copy
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor

from farm.catalog import Pipeline
from farm.errors import FarmError
from farm.faults import reach
from farm.spec import SharedParameters
from worker.watermark import mark


class BrokenPictureError(FarmError):
    """The model gave NaN or infinity where a picture should be."""


class Decoder:
    """Decodes for base and refiner of one catalog entry."""

    def __init__(self, vae: AutoencoderKL, entry: Pipeline) -> None:
        """``vae`` is that of the pipelines, in the entry's dtype; where another is needed, this one gets a copy."""
        upcast = entry.dtype == "float16" and vae.config.force_upcast
        dtype = getattr(torch, entry.vae_dtype or ("float32" if upcast else entry.dtype))
        self.vae: Any = vae if vae.dtype == dtype else copy.deepcopy(vae).to(dtype)
        self._processor = VaeImageProcessor()

    def decoded(self, latents: torch.Tensor, shared: SharedParameters) -> torch.Tensor:
        """Pictures (n, 3, height, width) in 0..1 of latents (n, 4, height / 8, width / 8), watermarked where wanted.

        Raises BrokenPictureError, WatermarkMissingError.
        """
        with torch.no_grad():
            # Slices keep their memory format, which decides a picture's last bits.
            pictures = torch.cat([self._decoded(latents[n : n + 1], shared) for n in range(len(latents))])
        return finite(pictures)

    def _decoded(self, latents: torch.Tensor, shared: SharedParameters) -> torch.Tensor:
        config, latents = self.vae.config, latents.to(self.vae.dtype)
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, std = (
                torch.tensor(config[name]).view(1, -1, 1, 1).to(latents.device, latents.dtype)
                for name in ("latents_mean", "latents_std")
            )
            latents = latents * std / config.scaling_factor + mean
        else:
            latents = latents / config.scaling_factor
        marked = mark(self.vae.decode(latents, return_dict=False)[0], shared)
        picture: torch.Tensor = self._processor.postprocess(marked, output_type="pt")
        return picture


def finite(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or BrokenPictureError if it holds NaN or infinity."""
    if reach("worker.made") == "nan":
        tensor = tensor * torch.nan
    if not torch.isfinite(tensor).all():
        raise BrokenPictureError(
            "The model gave NaN or infinity. With float16 the cause is mostly the VAE: use one made for float16, or "
            "set vae_dtype to bfloat16 or float32."
        )
    return tensor
