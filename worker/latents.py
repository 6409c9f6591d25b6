"""Latents on their way through the store: safetensors, never pickle."""

import json
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
    """The latents (n, 4, h, w) of ``pack``'s bytes, in their dtype, on the CPU.

    Raises ObjectCorruptError for anything else: other bytes, another format, another shape, integers.
    """
    try:
        latents = load(data)["latents"]
        metadata = _metadata(data)
        written_as, count = metadata["format"], len(metadata["indices"].split(","))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ObjectCorruptError(f"{len(data)} bytes are no latents: {error}") from error
    if written_as != FORMAT:
        raise ObjectCorruptError(f"latents in the format {written_as!r}, expected {FORMAT!r}")
    if latents.ndim != 4 or latents.shape[1] != 4 or len(latents) != count or not latents.is_floating_point():
        raise ObjectCorruptError(
            f"latents of shape {tuple(latents.shape)} and {latents.dtype}, expected ({count}, 4, h, w) of floats"
        )
    return latents


def _metadata(data: bytes) -> dict[str, str]:
    """What safetensors' own ``load`` leaves out: the file begins with its header's length (8 bytes) and the header."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata
