"""Groups a job's images to batches: the images that can share one pipeline call."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from farm.spec import ImageParameters, SharedParameters


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch before it has an id: what its images share, and their indices."""

    parameters: SharedParameters
    indices: tuple[int, ...]


_shared_values = attrgetter(*SharedParameters.model_fields)


def group_to_batches(images: Sequence[ImageParameters], batch_size: int) -> list[PlannedBatch]:
    """All images in as few batches of at most ``batch_size`` as possible, in the order of their first image.

    Images share a batch when their shared parameters are equal and all or none of them have a negative prompt:
    diffusers takes one per image, but has a different unconditional embedding for "none" (zeros).
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault((*_shared_values(image), image.negative_prompt is None), []).append(index)
    batches = [
        PlannedBatch(images[group[0]].shared(), tuple(group[start : start + batch_size]))
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    ]
    return sorted(batches, key=lambda batch: batch.indices[0])
