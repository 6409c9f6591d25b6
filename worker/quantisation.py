"""The linear layers of a UNet in 8 bits, by torchao: weights once, activations as they come.

https://docs.pytorch.org/ao/stable/workflows/inference.html
"""

from typing import Any

import torch

from farm.errors import ConfigurationError

#: Sizes of a layer that the 8-bit kernels take: multiples of this.
_MULTIPLE = 16


def quantise(unet: Any, kind: str, pipeline: str) -> None:
    """Replace the weights of the UNet's linear layers: ``int8`` or ``fp8`` (of pipeline ``pipeline``).

    What adds little work and much error is left as it is: time embedding and conditions, small next to the rest.
    Raises ConfigurationError where torchao or a device that can do it is missing.
    """
    try:
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            Int8DynamicActivationInt8WeightConfig,
            PerRow,
            quantize_,
        )
    except ImportError as error:
        raise ConfigurationError(
            f"Pipeline {pipeline!r}: quantisation needs torchao ({error}); pip install 'sdxl-farm[quantisation]' on "
            f'the workers, or set quantisation = "none".'
        ) from error
    config = (
        Int8DynamicActivationInt8WeightConfig()
        if kind == "int8"
        else Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    )
    try:
        quantize_(unet, config, filter_fn=_is_quantised)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ConfigurationError(
            f"Pipeline {pipeline!r}: this device cannot compute in {kind} ({error}). fp8 needs an NVIDIA GPU of "
            f'compute capability 8.9 (Ada) or newer; set quantisation = "int8" or "none".'
        ) from error


def _is_quantised(module: torch.nn.Module, name: str) -> bool:
    return (
        isinstance(module, torch.nn.Linear)
        and not any(part in name for part in ("time_emb", "add_embedding"))
        and module.in_features % _MULTIPLE == 0
        and module.out_features % _MULTIPLE == 0
    )
