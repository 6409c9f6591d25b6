"""How many images a pipeline call takes best: as the catalog fixes it, or as devices have measured it."""

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import Engine, func, select

from farm.catalog import Pipeline
from farm.models import Worker
from farm.spec import MAX_BATCH, SharedParameters
from farm.states import Stage

#: Where nobody has measured.
DEFAULT = 4
#: What a worker measured counts so long after its last sign of life: a farm that sleeps by night keeps its sizes.
MEMORY = timedelta(days=7)

Size = tuple[int, int]
"""Width and height in pixels."""
Measured = Mapping[Stage, Mapping[Size, int]]
"""The number of images that was fastest, of a stage's calls for pictures of a size."""


class BatchSizes:
    """The number of images that calls and batches should have."""

    def __init__(self, fixed: int | None = None, measured: Measured | None = None) -> None:
        """``fixed`` is what an entry of the catalog says, or a job: then nothing else counts."""
        self._fixed = fixed
        self._measured = measured or {}

    def best(self, stage: Stage, width: int, height: int) -> int | None:
        """Images in the fastest call; None where it was never measured, or must not matter.

        A size that was not measured gets its share of the nearest one that was: as many pixels in a call.
        """
        known = self._measured.get(stage)
        if self._fixed is not None or not known:
            return None
        pixels = width * height
        nearest = min(known, key=lambda size: abs(size[0] * size[1] - pixels))
        return min(max(known[nearest] * nearest[0] * nearest[1] // pixels, 1), MAX_BATCH)

    def of_call(self, stage: Stage, width: int, height: int) -> int:
        """Images that a call should take."""
        return self._fixed or self.best(stage, width, height) or DEFAULT

    def of_batch(self, shared: SharedParameters) -> int:
        """Images that a batch should have: as many as the stage takes that takes most, since the other can split it."""
        stages = tuple(Stage) if shared.refined else (Stage.BASE,)
        return max(self.of_call(stage, shared.width, shared.height) for stage in stages)


def find_batch_sizes(engine: Engine, entry: Pipeline, fixed: int | None = None) -> BatchSizes:
    """The sizes for an entry of the catalog: what a job says (``fixed``), else the catalog, else its workers.

    Of devices that differ the largest counts: those for which it is too many split a batch.
    """
    fixed = fixed or entry.batch_size
    if fixed is not None:
        return BatchSizes(fixed)
    query = select(Worker.batch_sizes).where(
        Worker.pipeline == entry.name, Worker.batch_sizes.is_not(None), Worker.heartbeat_at > func.now() - MEMORY
    )
    with engine.connect() as connection:
        told = connection.scalars(query.distinct()).all()
    largest: dict[Stage, dict[Size, int]] = {}
    for sizes in told:
        for stage, of_stage in read_measured(sizes or {}).items():
            known = largest.setdefault(stage, {})
            for size, images in of_stage.items():
                known[size] = max(known.get(size, 0), images)
    return BatchSizes(None, largest)


def read_measured(written: Mapping[str, Mapping[str, int]]) -> dict[Stage, dict[Size, int]]:
    """What ``write_measured`` wrote."""
    return {
        Stage(stage): {(int((parts := size.split("x"))[0]), int(parts[1])): images for size, images in sizes.items()}
        for stage, sizes in written.items()
    }


def write_measured(measured: Measured) -> dict[str, dict[str, int]]:
    """As JSON: stage, then size as 1024x1024, then images."""
    return {
        stage.value: {f"{width}x{height}": images for (width, height), images in sizes.items()}
        for stage, sizes in measured.items()
    }
