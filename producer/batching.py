"""Groups a job's images to batches: the images that can share one pipeline call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from farm.spec import ImageParameters, SharedParameters
from producer.expand import Plan


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch before it has an id: what its images share, and their indices."""

    parameters: SharedParameters
    indices: tuple[int, ...]


def batches_of(plan: Plan) -> tuple[list[PlannedBatch], int]:
    """A plan's batches, and how many of them, from the first, may begin at once.

    A test run's images share no batch with the others, which wait for its end.
    """
    size = plan.spec.batch_size or plan.pipeline.batch_size
    first = min(plan.spec.test_run or len(plan.images), len(plan.images))
    tested = group_to_batches(plan.images[:first], size)
    rest = group_to_batches(plan.images[first:], size)
    moved = [replace(batch, indices=tuple(index + first for index in batch.indices)) for batch in rest]
    return [*tested, *moved], len(tested)


def group_to_batches(images: Sequence[ImageParameters], batch_size: int) -> list[PlannedBatch]:
    """All images in as few batches of at most ``batch_size`` as possible, in the order of their first image."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.sharing_key(), []).append(index)
    batches = []
    for group in groups.values():
        first = images[group[0]]
        size = 1 if first.alone else batch_size
        shared = first.shared()
        batches += [PlannedBatch(shared, tuple(group[at : at + size])) for at in range(0, len(group), size)]
    return sorted(batches, key=lambda batch: batch.indices[0])
