"""Latents on their way through the store: safetensors, never pickle."""

from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from farm.errors import ObjectCorruptError

FORMAT = "sdxl-farm latents 1"


def pack(latents: torch.Tensor, indices: Sequence[int]) -> bytes:
    """Latents (n, 4, h, w) of the images with these indices, as the bytes of a safetensors file."""
    metadata = {"format": FORMAT, "indices": ",".join(map(str, indices))}
    return save({"latents": latents.contiguous()}, metadata)


def unpack(data: bytes) -> torch.Tensor:
    """The latents of ``pack``'s bytes, on the CPU; raises ObjectCorruptError for anything else."""
    try:
        latents = load(data)["latents"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise ObjectCorruptError(f"{len(data)} bytes are no latents: {error}") from error
    if latents.ndim != 4 or latents.shape[1] != 4:
        raise ObjectCorruptError(f"latents of shape {tuple(latents.shape)}, expected (n, 4, h, w)")
    return latents
