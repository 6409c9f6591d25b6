"""Finds by measurement how many images a call takes best on this device, and remembers it beside the models."""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pynvml

from farm.batch_sizes import Measured, Size, read_measured, write_measured
from farm.catalog import Pipeline
from farm.spec import MAX_BATCH, ImageParameters
from farm.states import Stage
from worker.kept_file import KeptFile
from worker.memory import is_out_of_memory, release
from worker.pipelines import LoadedPipeline
from worker.trials import render_trial, trial_images

logger = logging.getLogger(__name__)

#: Where, in the models directory.
TUNING_FILE = "batch-sizes.json"
#: A batch of twice the size must be faster by so much to be worth its longer wait.
WORTH = 0.02
#: Steps of the two calls whose difference tells what a step takes.
_FEW, _MORE = 2, 6
_REPEATS = 2
#: The share of the base, where an entry does not refine unless it is asked to.
_SPLIT = 0.8
#: Fields of an entry that change nothing of a call's speed, or are what is looked for.
_IRRELEVANT = {
    "name",
    "batch_size",
    "max_width",
    "max_height",
    "max_num_inference_steps",
    "max_guidance_scale",
}

OnMeasured = Callable[[int, float | None], None]
"""Told of each number of images with the seconds that each took; None where memory ran out."""


class Tuning:
    """What is known of one entry on one kind of device, with these versions of driver and libraries."""

    def __init__(self, path: Path, pipeline: LoadedPipeline) -> None:
        self._file = KeptFile(path)
        entry = hashlib.sha256(pipeline.entry.model_dump_json(exclude=_IRRELEVANT).encode()).hexdigest()
        self._key = ", ".join([*pipeline.fingerprint.values(), f"driver {_driver()}", entry[:16]])

    def measured(self) -> Measured:
        """All sizes that were measured."""
        return read_measured(self._file.read().get(self._key, {}))

    def complete(self, pipeline: LoadedPipeline, stages: Collection[Stage]) -> None:
        """Measure what is not known yet of pictures of the entry's default size."""
        defaults = pipeline.entry.defaults
        size = (defaults.width, defaults.height)
        for stage in stages:
            if size not in self.measured().get(stage, {}):
                best = tune(pipeline, stage, size)
                logger.info(
                    "%s of %s: %d images of %dx%d in a call are fastest", stage, pipeline.entry.name, best, *size
                )
                self.remember(stage, size, best)

    def remember(self, stage: Stage, size: Size, images: int) -> None:
        """Keep the best number for pictures of a size."""
        known = {stage: dict(sizes) for stage, sizes in self.measured().items()}
        known.setdefault(stage, {})[size] = images
        self._file.keep({self._key: write_measured(known)})


def tune(
    pipeline: LoadedPipeline, stage: Stage, size: Size, on_measured: OnMeasured | None = None, most: int = MAX_BATCH
) -> int:
    """The number of images with which a picture of this size takes this stage the least time.

    Doubled until it gains nothing more, memory runs out, or it would be more than ``most``. Raises what torch raises
    if not even one fits.
    """
    told = on_measured or (lambda _images, _seconds: None)
    seconds: dict[int, float] = {}
    images = 1
    while images <= most:
        try:
            seconds[images] = seconds_per_image(pipeline, stage, size, images)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or images == 1:
                raise
            told(images, None)
            break
        told(images, seconds[images])
        # One that gains nothing may be chance.
        if images >= 4 * best_of(seconds):
            break
        images *= 2
    release()
    return best_of(seconds)


def best_of(seconds: Mapping[int, float]) -> int:
    """The smallest number of images whose seconds for each are within ``WORTH`` of the least."""
    least = min(seconds.values())
    return min(images for images, taken in seconds.items() if taken * (1 - WORTH) <= least)


def seconds_per_image(pipeline: LoadedPipeline, stage: Stage, size: Size, images: int) -> float:
    """What each of so many images takes of this stage at the entry's default number of steps, in seconds.

    From two calls of few steps: one step is what they differ by, and the rest, texts and decoding, is done once.
    """
    few, more = (trial_images(pipeline, stage, size, steps) for steps in (_FEW, _MORE))
    render_trial(pipeline, stage, few, images)
    of_few, of_more = (
        min(_seconds(pipeline, stage, shared, images) for _ in range(_REPEATS)) for shared in (few, more)
    )
    step = max(of_more - of_few, 0.0) / (_MORE - _FEW)
    return max(of_few + step * (_default_steps(pipeline.entry, stage) - _FEW), step) / images


def _seconds(pipeline: LoadedPipeline, stage: Stage, shared: ImageParameters, images: int) -> float:
    started = time.perf_counter()
    render_trial(pipeline, stage, shared, images)
    return time.perf_counter() - started


def _default_steps(entry: Pipeline, stage: Stage) -> float:
    split = entry.defaults.refiner_split
    if stage is Stage.REFINER:
        share = 1 - (_SPLIT if split is None else split)
    else:
        share = 1.0 if split is None or entry.refiner is None else split
    return entry.defaults.num_inference_steps * share


def _driver() -> str:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return "none"
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()
