"""Latents on their way through the store: safetensors, never pickle."""

import json
from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from farm.errors import ObjectCorruptError

FORMAT = "sdxl-farm latents 2"
CONTIGUOUS = "contiguous"
#: How latents lie in memory decides which kernel convolves them, and so the last bits of the picture: they arrive as
#: they left. Latents that began as a picture come with their channels last.
MEMORY_FORMATS = {CONTIGUOUS: torch.contiguous_format, "channels last": torch.channels_last}


def pack(latents: torch.Tensor, indices: Sequence[int]) -> bytes:
    """Latents (n, 4, h, w) of the images with these indices, as the bytes of a safetensors file."""
    metadata = {"format": FORMAT, "indices": ",".join(map(str, indices)), "memory": _memory_format(latents)}
    return save({"latents": latents.contiguous()}, metadata)


def join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Latents of the parts of a batch as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def unpack(data: bytes) -> torch.Tensor:
    """The latents (n, 4, h, w) of ``pack``'s bytes, in their dtype, on the CPU.

    Raises ObjectCorruptError for anything else: other bytes, another format, another shape, integers.
    """
    try:
        latents = load(data)["latents"]
        metadata = _metadata(data)
        written_as, count = metadata["format"], len(metadata["indices"].split(","))
        memory_format = MEMORY_FORMATS[metadata["memory"]]
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ObjectCorruptError(f"{len(data)} bytes are no latents: {error}") from error
    if written_as != FORMAT:
        raise ObjectCorruptError(f"latents in the format {written_as!r}, expected {FORMAT!r}")
    if latents.ndim != 4 or latents.shape[1] != 4 or len(latents) != count or not latents.is_floating_point():
        raise ObjectCorruptError(
            f"latents of shape {tuple(latents.shape)} and {latents.dtype}, expected ({count}, 4, h, w) of floats"
        )
    return latents.contiguous(memory_format=memory_format)


def _memory_format(latents: torch.Tensor) -> str:
    for name, memory_format in MEMORY_FORMATS.items():
        if latents.is_contiguous(memory_format=memory_format):
            return name
    return CONTIGUOUS


def _metadata(data: bytes) -> dict[str, str]:
    """What safetensors' own ``load`` leaves out: the file begins with its header's length (8 bytes) and the header."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata
