"""Groups a job's images to batches: the images that can share one pipeline call."""

from collections.abc import Sequence
from dataclasses import dataclass

from farm.spec import ImageParameters, SharedParameters


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch before it has an id: what its images share, and their indices."""

    parameters: SharedParameters
    indices: tuple[int, ...]


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
