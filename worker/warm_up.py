"""The first calls of a loaded pipeline, before it takes work: they compile what the entry compiles, and fill caches."""

from collections.abc import Collection

from farm.batch_sizes import BatchSizes
from farm.spec import ImageParameters
from farm.states import Stage
from worker.memory import MemoryLimits, in_parts, kind_of
from worker.pipelines import LoadedPipeline
from worker.trials import render_trial, trial_images

_STEPS = 2


def warm_up(pipeline: LoadedPipeline, served: Collection[Stage], limits: MemoryLimits, sizes: BatchSizes) -> None:
    """Render a full batch of the entry's default size, in a few steps, by each stage that is served.

    What does not fit into memory is rendered in parts, and these are remembered in ``limits``, as of any other call.
    """
    size = (pipeline.entry.defaults.width, pipeline.entry.defaults.height)
    for stage in served:
        shared = trial_images(pipeline, stage, size, _STEPS)
        count = sizes.of_call(stage, *size)

        def part(chosen: slice, stage: Stage = stage, shared: ImageParameters = shared) -> None:
            render_trial(pipeline, stage, shared, chosen.stop - chosen.start)

        in_parts(count, kind_of(shared, stage), limits, part)
