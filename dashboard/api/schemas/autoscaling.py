"""What autoscalers ask and are told."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from dashboard.api.operations import Document, Query, Whole
from farm.states import Stage


class ServedStages(StrEnum):
    """What the workers serve that are to be scaled."""

    BASE = "base"
    REFINER = "refiner"
    BOTH = "both"

    @property
    def stages(self) -> frozenset[Stage]:
        """The same as stages."""
        return frozenset(Stage) if self is ServedStages.BOTH else frozenset({Stage(self.value)})


class AutoscalingQuery(Query):
    """For which workers."""

    pipeline: Annotated[str, Field(max_length=200)] | None = Field(default=None, description="the farm's by default")
    stage: ServedStages = ServedStages.BOTH
    seconds: Annotated[Whole, Field(ge=1, le=604_800)] | None = Field(
        default=None, description="in which what waits shall be done; `FARM_AUTOSCALE_SECONDS` by default"
    )


class AutoscalingDocument(Document):
    """How many devices there should be, and why."""

    pipeline: str
    stage: ServedStages
    devices: int
    workers: int
    batches: int
    waiting_seconds: float | None
    target_seconds: float
