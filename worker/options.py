"""Options of a catalog entry that trade memory or start-up time: those of diffusers' documentation, under its names.

https://huggingface.co/docs/diffusers/optimization/memory and .../optimization/fp16
"""

from typing import Any

import torch

from farm.catalog import Pipeline
from farm.errors import ConfigurationError
from worker.decoding import Decoder


def apply_options(pipe: Any, decoder: Decoder, entry: Pipeline, device: str) -> None:
    """Set up a loaded pipeline and its decoder as the entry says.

    Raises ConfigurationError for what this device or machine lacks.
    """
    if entry.offload != "none":
        if not device.startswith("cuda"):
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
    if entry.channels_last:
        pipe.unet.to(memory_format=torch.channels_last)
    if entry.fused_qkv:
        pipe.fuse_qkv_projections(unet=True, vae=False)
    if entry.compile == "regional":
        pipe.unet.compile_repeated_blocks()
    elif entry.compile == "full":
        pipe.unet.compile()
