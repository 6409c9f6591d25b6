"""What a stage hands over for each image, by the format that was asked for."""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from worker.transfers import to_host

Picture = Image.Image | np.ndarray[Any, np.dtype[np.float32]] | torch.Tensor
"""8 bits per channel as PIL; more as floats (height, width, 3) in 0..1; or the latents (4, height / 8, width / 8)."""

#: "Linear" preview of SDXL's latents: RGB in -1..1 from four channels, fitted by the community and used by ComfyUI
#: (comfy/latent_formats.py, class SDXL).
LATENT_TO_RGB = (
    (0.3651, 0.4232, 0.4341),
    (-0.2533, -0.0042, 0.1068),
    (0.1076, 0.1111, -0.0362),
    (-0.3165, -0.2492, -0.2188),
)
LATENT_RGB_BIAS = (0.1084, -0.0175, -0.0011)


def finish(decoded: torch.Tensor, output_format: str) -> list[Picture]:
    """Decoded pictures (n, 3, height, width) in 0..1, each as its format wants it."""
    if output_format == "png16":
        return list(VaeImageProcessor.pt_to_numpy(decoded))
    # diffusers' numpy_to_pil, but on the device: a quarter of the bytes leave it, and no core rounds them.
    rounded = (decoded.float() * 255).round().to(torch.uint8)
    return [Image.fromarray(samples) for samples in to_host(rounded.permute(0, 2, 3, 1).contiguous()).numpy()]


def preview(picture: Picture) -> Image.Image:
    """The picture as PIL with 8 bits per channel; of latents an approximation in an eighth of the size."""
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, torch.Tensor):
        rgb = torch.einsum("chw,cr->hwr", picture, torch.tensor(LATENT_TO_RGB)) + torch.tensor(LATENT_RGB_BIAS)
        picture = ((rgb + 1) / 2).clamp(0, 1).numpy()
    return Image.fromarray((picture * 255).round().astype(np.uint8))
