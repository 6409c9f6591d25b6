"""Batches that do not fit into a device's memory: rendered in smaller parts, of a size that is remembered."""

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from farm.errors import FarmError
from farm.spec import ImageParameters
from farm.states import Stage
from worker.kept_file import KeptFile

logger = logging.getLogger(__name__)

Part = TypeVar("Part")

#: What torch says when the allocator of the CPU gets nothing; it has no exception of its own for that.
_CPU_ALLOCATOR = "DefaultCPUAllocator"


class OutOfMemoryError(FarmError):
    """Not even one image fits."""


class MemoryLimits:
    """How many images of a kind fit into one call, as experience tells; kept on disk, beside the models."""

    def __init__(self, path: Path, device_name: str) -> None:
        self._file = KeptFile(path)
        self._device_name = device_name

    def limit(self, kind: str) -> int | None:
        """Images of this kind that fit on this device, None where all ever did."""
        limit: int | None = self._file.read().get(f"{self._device_name}, {kind}")
        return limit

    def remember(self, kind: str, images: int) -> None:
        """Keep what was found."""
        self._file.keep({f"{self._device_name}, {kind}": images})


def kind_of(shared: ImageParameters, stage: Stage) -> str:
    """What decides how much memory the images of a call take, as limits are kept for it."""
    kind = f"{shared.pipeline}, {stage.value}, {shared.mode}, {shared.width}x{shared.height}"
    if stage is Stage.BASE and shared.controlnet:
        kind += f", {len(shared.controlnet)} ControlNets"
    return kind


def in_parts(
    count: int, kind: str, limits: MemoryLimits, render: Callable[[slice], Part], at_most: int | None = None
) -> list[Part]:
    """Render ``count`` images in as few calls as fit into memory; ``render`` is given the images of a call.

    ``at_most`` is a number beyond which a call is not faster.

    When memory runs out the part is halved, the limit remembered, and the rest goes on; parts that are rendered stay.
    Raises OutOfMemoryError when one image alone does not fit.
    """
    size = min(count, at_most or count, limits.limit(kind) or count)
    parts: list[Part] = []
    done = 0
    while done < count:
        try:
            parts.append(render(slice(done, min(done + size, count))))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        else:
            done += size
            continue
        # Only here, where the exception and the tensors that its frames held are gone.
        release()
        if size == 1:
            raise OutOfMemoryError(
                f"One image ({kind}) does not fit into the device's memory ({reason[:200]}). Take a smaller size, or "
                f"have the operator set vae_tiling, attention_slicing or offload for this pipeline."
            )
        size = (size + 1) // 2
        limits.remember(kind, size)
        logger.warning("memory ran out: %s is rendered in parts of %d from now on", kind, size)
    return parts


def is_out_of_memory(error: Exception) -> bool:
    """Whether this is how torch, or Python, says that memory ran out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or _CPU_ALLOCATOR in str(error)


def release() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
