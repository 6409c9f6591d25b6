"""How long a job will take, from what the farm measured: arithmetic over numbers, without a database.

The unit of work is the megapixel-step: an image's megapixels times the denoising steps of a stage.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count

from farm.batch_sizes import BatchSizes
from farm.minutes import megapixel_steps
from farm.spec import SharedParameters
from farm.states import Stage
from producer.batching import MAX_OPEN, Grouping, PlannedBatch
from producer.expand import Expansion, Shape
from producer.intake import Row

Work = Mapping[Stage, float]
"""Megapixel-steps of each stage."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """What one pipeline's workers do, and have to do before anything new."""

    seconds_per_unit: Work
    """Seconds of a device for a megapixel-step, of the stages that were measured."""
    waiting: Work
    """What was submitted before and is not rendered yet."""
    workers: Mapping[frozenset[Stage], int]
    """How many live workers serve exactly these stages."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds; None where nothing was measured, or nobody is there to render."""

    device_seconds: float | None
    """What devices spend on it, added up."""
    seconds_until_done: float | None
    """From now, behind all that waits already."""


def work_per_image(shared: SharedParameters) -> Work:
    """Megapixel-steps of one image."""
    return {stage: megapixel_steps(shared, stage) for stage in Stage}


def work_of(batches: Iterable[PlannedBatch]) -> Work:
    """Megapixel-steps of all images of the batches."""
    total = dict.fromkeys(Stage, 0.0)
    for batch in batches:
        for stage, units in work_per_image(batch.parameters).items():
            total[stage] += units * len(batch.indices)
    return total


@dataclass(frozen=True, slots=True)
class Tally:
    """What a submission would become."""

    image_count: int
    batch_count: int
    work: Work


def tally(expansion: Expansion, rows: Iterable[Row], sizes: BatchSizes) -> Tally:
    """Count a submission's images, batches and work, row by row. Raises InvalidSubmissionError."""
    spec = expansion.spec
    numbers = count()
    grouping = Grouping(sizes, numbers)
    images: Counter[Shape] = Counter()
    total = dict.fromkeys(Stage, 0.0)
    seen = 0
    for seen, image in enumerate(expansion.images(rows), start=1):
        if seen - 1 == spec.test_run:
            grouping.close()
        grouping.put(image.shape)
        images[image.shape] += 1
        if len(images) > MAX_OPEN:
            _add_work(total, images)
    _add_work(total, images)
    return Tally(seen, next(numbers), total)


def _add_work(total: dict[Stage, float], images: "Counter[Shape]") -> None:
    """Move so many images of each shape to the total."""
    for shape, number in images.items():
        for stage, units in work_per_image(shape.shared).items():
            total[stage] += units * number
    images.clear()


def estimate(work: Work, throughput: Throughput) -> Estimate:
    """How long the work takes.

    The workers are taken as never idle: then the end comes when the busiest group of them is through, those of the
    base, those of the refiner, or all together (a worker that serves both stages helps where it is needed).
    """
    own = _seconds(work, throughput)
    if own is None:
        return Estimate(None, None)
    waiting = _seconds(throughput.waiting, throughput)
    if waiting is None:
        return Estimate(sum(own.values()), None)
    until = 0.0
    for stages in ({Stage.BASE}, {Stage.REFINER}, set(Stage)):
        needed = sum(own[stage] + waiting[stage] for stage in stages)
        able = sum(count for serves, count in throughput.workers.items() if serves & stages)
        if needed and not able:
            return Estimate(sum(own.values()), None)
        until = max(until, needed / able if able else 0.0)
    return Estimate(sum(own.values()), until)


def _seconds(work: Work, throughput: Throughput) -> dict[Stage, float] | None:
    """A device's seconds for each stage of the work; None if one of these was not measured."""
    seconds = dict.fromkeys(Stage, 0.0)
    for stage, units in work.items():
        if units:
            if stage not in throughput.seconds_per_unit:
                return None
            seconds[stage] = units * throughput.seconds_per_unit[stage]
    return seconds
