"""The invisible watermark that diffusers puts into SDXL's pictures."""

from functools import cache
from typing import Any

import torch
from diffusers.utils import is_invisible_watermark_available

from farm.combinations import MIN_WATERMARK_PIXELS
from farm.errors import FarmError
from farm.spec import SharedParameters


class WatermarkMissingError(FarmError):
    """A watermark is asked for, and the package that makes it is not installed."""


def watermarked(shared: SharedParameters) -> bool:
    """Whether the pictures get one. Raises WatermarkMissingError where they should and cannot."""
    if shared.watermark is False or shared.output_format == "latents":
        return False
    if not is_invisible_watermark_available():
        if shared.watermark:
            raise WatermarkMissingError(
                "watermark: this worker lacks the package invisible-watermark; install it "
                "(pip install --no-deps invisible-watermark, beside opencv-python-headless and PyWavelets) "
                "or leave the watermark out"
            )
        return False
    # diffusers leaves out pictures that are less than 256 wide, and fails over wider ones that are as small.
    return shared.width >= 256 and shared.width * shared.height >= MIN_WATERMARK_PIXELS


def mark(pictures: torch.Tensor, shared: SharedParameters) -> torch.Tensor:
    """Decoded pictures (n, 3, height, width) in -1..1 with the watermark in them, if they shall have one.

    Raises WatermarkMissingError.
    """
    if not watermarked(shared):
        return pictures
    marked: torch.Tensor = _watermarker().apply_watermark(pictures)
    return marked


def set_watermark(pipe: Any, shared: SharedParameters) -> None:
    """Have the pipeline's next call put the watermark in, or not. Raises WatermarkMissingError."""
    pipe.watermark = _watermarker() if watermarked(shared) else None


@cache
def _watermarker() -> Any:
    from diffusers.pipelines.stable_diffusion_xl.watermark import StableDiffusionXLWatermarker

    return StableDiffusionXLWatermarker()
