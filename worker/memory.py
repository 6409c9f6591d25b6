"""Batches that do not fit into a device's memory: rendered in smaller parts, of a size that is remembered."""

import gc
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from farm.errors import FarmError
from farm.spec import ImageParameters
from farm.states import Stage

logger = logging.getLogger(__name__)

Part = TypeVar("Part")

#: What torch says when the allocator of the CPU gets nothing; it has no exception of its own for that.
_CPU_ALLOCATOR = "DefaultCPUAllocator"


class OutOfMemoryError(FarmError):
    """Not even one image fits."""


class MemoryLimits:
    """How many images of a kind fit into one call, as experience tells; kept on disk, beside the models."""

    def __init__(self, path: Path, device_name: str) -> None:
        self._path = path
        self._device_name = device_name

    def limit(self, kind: str) -> int | None:
        """Images of this kind that fit on this device, None where all ever did."""
        return self._read().get(f"{self._device_name}, {kind}")

    def remember(self, kind: str, images: int) -> None:
        """Keep what was found; the file is replaced as a whole, so that other workers read it whole."""
        limits = self._read() | {f"{self._device_name}, {kind}": images}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False, encoding="utf-8") as file:
            json.dump(limits, file, indent=1, sort_keys=True)
        Path(file.name).replace(self._path)

    def _read(self) -> dict[str, int]:
        try:
            limits: dict[str, int] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            logger.warning("%s is damaged; limits of memory are found anew", self._path)
            return {}
        return limits


def kind_of(shared: ImageParameters, stage: Stage) -> str:
    """What decides how much memory the images of a call take, as limits are kept for it."""
    kind = f"{shared.pipeline}, {stage.value}, {shared.mode}, {shared.width}x{shared.height}"
    if stage is Stage.BASE and shared.controlnet:
        kind += f", {len(shared.controlnet)} ControlNets"
    return kind


def in_parts(count: int, kind: str, limits: MemoryLimits, render: Callable[[slice], Part]) -> list[Part]:
    """Render ``count`` images in as few calls as fit into memory; ``render`` is given the images of a call.

    When memory runs out the part is halved, the limit remembered, and the rest goes on; parts that are rendered stay.
    Raises OutOfMemoryError when one image alone does not fit.
    """
    size = min(count, limits.limit(kind) or count)
    parts: list[Part] = []
    done = 0
    while done < count:
        try:
            parts.append(render(slice(done, min(done + size, count))))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            reason = str(error)
        else:
            done += size
            continue
        # Only here, where the exception and the tensors that its frames held are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise OutOfMemoryError(
                f"One image ({kind}) does not fit into the device's memory ({reason[:200]}). Take a smaller size, or "
                f"have the operator set vae_tiling, attention_slicing or offload for this pipeline."
            )
        size = (size + 1) // 2
        limits.remember(kind, size)
        logger.warning("memory ran out: %s is rendered in parts of %d from now on", kind, size)
    return parts


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or _CPU_ALLOCATOR in str(error)
