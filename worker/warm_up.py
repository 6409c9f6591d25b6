"""The first calls of a loaded pipeline, before it takes work: they compile what the entry compiles, and fill caches."""

from collections.abc import Collection

import torch

from farm.spec import ImageParameters
from farm.states import Stage
from worker import stages
from worker.memory import MemoryLimits, in_parts, kind_of
from worker.pipelines import LoadedPipeline

_STEPS = 4
_SPLIT = 0.5


def warm_up(pipeline: LoadedPipeline, served: Collection[Stage], limits: MemoryLimits) -> None:
    """Render a full batch of the entry's default size, in a few steps, by each stage that is served.

    What does not fit into memory is rendered in parts, and these are remembered in ``limits``, as of any other call.
    """
    if Stage.BASE in served:
        alone = _images(pipeline, None)
        in_parts(
            len(alone),
            kind_of(alone[0], Stage.BASE),
            limits,
            lambda part: stages.render_base_only(pipeline, alone[part], {}, _no_step),
        )
    if Stage.REFINER in served:
        refined = _images(pipeline, _SPLIT)
        defaults = pipeline.entry.defaults
        shape = (len(refined), 4, defaults.height // 8, defaults.width // 8)
        dtype = getattr(torch, pipeline.entry.dtype)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        in_parts(
            len(refined),
            kind_of(refined[0], Stage.REFINER),
            limits,
            lambda part: stages.render_refiner(pipeline, refined[part], {}, noise[part], _no_step),
        )


def _images(pipeline: LoadedPipeline, refiner_split: float | None) -> list[ImageParameters]:
    entry = pipeline.entry
    shared = {
        "pipeline": entry.name,
        "width": entry.defaults.width,
        "height": entry.defaults.height,
        "guidance_scale": entry.defaults.guidance_scale,
        "num_inference_steps": _STEPS,
        "refiner_split": refiner_split,
    }
    return [
        ImageParameters.model_validate({**shared, "prompt": f"warm-up {number}", "seed": number})
        for number in range(entry.batch_size)
    ]


def _no_step(_step: stages.Step) -> None:
    """Nobody waits for it."""
