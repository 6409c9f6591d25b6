"""Groups a job's images to batches: the images that can share one pipeline call."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from farm.batch_sizes import BatchSizes
from farm.spec import SharedParameters
from producer.expand import Plan, Shape

#: Batches that are kept open for further images of their kind; beyond, the one that began first is closed.
MAX_OPEN = 10_000


class Grouping:
    """Puts images into batches as they come: each into the one that others of its kind have begun, while that has room.

    So there are as few batches as possible, in the order of their first image. ``numbers`` are given to them in turn.
    """

    def __init__(self, sizes: BatchSizes, numbers: Iterator[int]) -> None:
        self._sizes = sizes
        self._numbers = numbers
        #: The number of each open batch, and how many images it has room for.
        self._open: dict[tuple[object, ...], list[int]] = {}

    def put(self, shape: Shape) -> tuple[int, bool]:
        """The number of the next image's batch, and whether it is a new one."""
        key = shape.sharing_key
        begun = self._open.get(key)
        if begun is not None and begun[1] > 0:
            begun[1] -= 1
            return begun[0], False
        number = next(self._numbers)
        if begun is None and len(self._open) >= MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[key] = [number, 0 if shape.parameters.alone else self._sizes.of_batch(shape.shared) - 1]
        return number, True

    def close(self) -> None:
        """Let no later image join the batches so far."""
        self._open.clear()


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch that is not written yet: what its images share, and their indices."""

    parameters: SharedParameters
    indices: list[int] = field(default_factory=list)


def batches_of(plan: Plan, sizes: BatchSizes) -> list[PlannedBatch]:
    """A plan's batches. A test run's images share none with the others, which wait for its end."""
    return group_to_batches((image.shape for image in plan.planned), sizes, plan.spec.test_run)


def group_to_batches(images: Iterable[Shape], sizes: BatchSizes, test_run: int | None = None) -> list[PlannedBatch]:
    """All images in as few batches as possible, in the order of their first image."""
    grouping = Grouping(sizes, count())
    batches: list[PlannedBatch] = []
    for index, shape in enumerate(images):
        if index == test_run:
            grouping.close()
        number, is_new = grouping.put(shape)
        if is_new:
            batches.append(PlannedBatch(shape.shared))
        batches[number].indices.append(index)
    return batches
