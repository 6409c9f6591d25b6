"""Calls of a loaded pipeline for nobody: to warm it up, and to measure it."""

import torch

from farm.spec import ImageParameters
from farm.states import Stage
from worker import stages
from worker.pipelines import LoadedPipeline

#: The refiner's trials are the second half of a schedule.
_SPLIT = 0.5


def trial_images(pipeline: LoadedPipeline, stage: Stage, size: tuple[int, int], steps: int) -> ImageParameters:
    """What the images of a trial have in common: the entry's defaults, and so many steps of this stage."""
    entry = pipeline.entry
    refiner = stage is Stage.REFINER
    return ImageParameters.model_validate(
        {
            "pipeline": entry.name,
            "prompt": "a trial",
            "seed": 0,
            "width": size[0],
            "height": size[1],
            "guidance_scale": entry.defaults.guidance_scale,
            "num_inference_steps": 2 * steps if refiner else steps,
            "refiner_split": _SPLIT if refiner else None,
        }
    )


def render_trial(pipeline: LoadedPipeline, stage: Stage, shared: ImageParameters, count: int) -> None:
    """Render so many images of a trial, to pictures on the CPU."""
    images = [
        shared.model_copy(update={"prompt": f"{shared.prompt} {number}", "seed": number}) for number in range(count)
    ]
    if stage is Stage.BASE:
        stages.render_base_only(pipeline, images, {}, _no_step)
        return
    shape = (count, 4, shared.height // 8, shared.width // 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stages.render_refiner(pipeline, images, {}, noise.to(getattr(torch, pipeline.entry.dtype)), _no_step)


def _no_step(_step: stages.Step) -> None:
    """Nobody waits for it."""
