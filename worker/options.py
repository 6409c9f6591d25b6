"""Options of a catalog entry that trade memory, start-up time or exactness: those of diffusers, under its names.

https://huggingface.co/docs/diffusers/optimization/memory and .../optimization/fp16
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from farm.catalog import Pipeline
from farm.errors import ConfigurationError
from worker.decoding import Decoder
from worker.quantisation import quantise

_ATTENTION = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def apply_options(pipe: Any, decoder: Decoder, entry: Pipeline, device: str) -> None:
    """Set up a loaded pipeline and its decoder as the entry says.

    Raises ConfigurationError for what this device or machine lacks.
    """
    on_gpu = device.startswith("cuda")
    if entry.offload != "none":
        if not on_gpu:
            raise ConfigurationError(
                f"Pipeline {entry.name!r}: offload moves weights off a GPU, and this worker renders on {device}; "
                f'set offload = "none" for it.'
            )
        if entry.offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.enable_sequential_cpu_offload(device=device)
    for vae in (pipe.vae, decoder.vae):
        if entry.vae_slicing:
            vae.enable_slicing()
        if entry.vae_tiling:
            vae.enable_tiling()
    if entry.attention_slicing:
        pipe.enable_attention_slicing()
    if entry.xformers:
        try:
            pipe.enable_xformers_memory_efficient_attention()
        except (ImportError, ModuleNotFoundError, ValueError) as error:
            raise ConfigurationError(
                f"Pipeline {entry.name!r}: xformers cannot be used ({error}). Install it, or set xformers = false: "
                f"torch's own attention is as fast."
            ) from error
    if on_gpu if entry.channels_last is None else entry.channels_last:
        pipe.unet.to(memory_format=torch.channels_last)
    if entry.quantisation != "none":
        quantise(pipe.unet, entry.quantisation, entry.name)
    if projections_are_fused(entry, device):
        pipe.fuse_qkv_projections(unet=True, vae=False)
    if entry.compile == "regional":
        pipe.unet.compile_repeated_blocks()
    elif entry.compile in ("full", "max-autotune"):
        # On a GPU both record CUDA graphs.
        pipe.unet.compile(mode="max-autotune" if entry.compile == "max-autotune" else "reduce-overhead")


def projections_are_fused(entry: Pipeline, device: str) -> bool:
    """Whether the UNets' query, key and value come from one projection, where nothing acts on the single ones."""
    if entry.fused_qkv is not None:
        return entry.fused_qkv
    # These three bring attention or weights of their own.
    other = entry.attention_slicing or entry.xformers or entry.quantisation != "none"
    return device.startswith("cuda") and not other


@contextmanager
def attention_of(entry: Pipeline) -> Iterator[None]:
    """The time of a call, with the entry's kernel for attention tried first and torch's others after it."""
    if entry.attention == "auto":
        yield
        return
    first = _ATTENTION[entry.attention]
    with sdpa_kernel([first, *(one for one in _ATTENTION.values() if one is not first)], set_priority=True):
        yield
