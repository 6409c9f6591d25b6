"""Pictures that go in, presets, words; workers, queues and figures; what the catalog offers."""

import re
from collections.abc import Iterable
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any

from pydantic import Field

from dashboard.api.bodies import Body, shown
from dashboard.api.operations import Document, Number, Query, Whole
from farm.events import KINDS


class ProblemEntry(Document):
    """One thing that is wrong."""

    field: str
    message: str
    line: int | None
    pointer: str | None = None


class ProblemDocument(Document):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ProblemEntry] = Field(default=[], description="at most 100 of them")
    error_count: int | None = Field(default=None, description="how many there are in all")
    violated_policies: list[str] | None = Field(
        default=None, alias="violated-policies", description="quotas that the request would exceed"
    )


class InputBody(Body, json_schema_extra=shown(url="https://example.org/house.png")):
    """Where a picture lies."""

    url: Annotated[str, Field(max_length=2000)]


class InputDocument(Document):
    """A picture in the store, and the name under which a spec speaks of it."""

    input: str
    width: int
    height: int
    size: int
    media_type: str
    url: str


class PresetBody(Body, json_schema_extra=shown(name="draft", fields={"steps": "20", "size": "512x512"})):
    """Fields of a job under a name."""

    name: str
    fields: dict[str, Any]
    shared: bool = False


class PresetDocument(Document):
    """Fields of a job under a name."""

    id: int
    name: str
    owner: str
    shared: bool
    fields: dict[str, Any]
    updated_at: datetime


class Presets(Document):
    """One's own, and those that others share."""

    presets: list[PresetDocument]


class WordList(Document):
    """Words for prompt templates."""

    name: str
    words: list[str]


class WordLists(Document):
    """All lists of words."""

    word_lists: list[WordList]


class PipelineDocument(Document):
    """A pipeline of the catalog: limits, defaults, and what may be added to it."""

    name: str
    default: bool
    has_refiner: bool
    batch_size: int
    max_width: int
    max_height: int
    max_num_inference_steps: int
    max_guidance_scale: float
    defaults: dict[str, Any]
    loras: list[str]
    textual_inversions: list[str]
    controlnets: list[str]
    ip_adapters: list[str]


class Pipelines(Document):
    """All pipelines."""

    pipelines: list[PipelineDocument]


class AdapterDocument(Document):
    """Something that is added to a pipeline by its name."""

    name: str
    pipelines: list[str]
    """Those that it was made for."""


class Adapters(Document):
    """The adapters of the catalog, and the schedulers."""

    loras: list[AdapterDocument]
    textual_inversions: list[AdapterDocument]
    controlnets: list[AdapterDocument]
    ip_adapters: list[AdapterDocument]
    schedulers: list[str]


class WorkerBatch(Document):
    """What a worker renders now."""

    id: int
    job_id: int
    stage: str
    image_count: int
    step: int | None
    steps: int | None


class WorkerDocument(Document):
    """A worker: one process on one device."""

    id: str
    hostname: str
    process_id: int
    device: str
    device_name: str
    pipeline: str
    stages: list[str]
    tags: list[str]
    holds: list[str] = Field(description="entries of the catalog that its machine has complete")
    state: str
    alive: bool
    stopped_because: str | None = Field(description="what of its device made it end")
    draining: bool
    heartbeat_age_seconds: float
    memory_used: int | None
    memory_total: int | None
    utilisation: float | None
    restarts: int
    images_completed: int
    pictures_per_hour: float | None
    failures_last_hour: int
    started_at: datetime
    batches: list[WorkerBatch]


class Workers(Document):
    """The workers of the last hour."""

    workers: list[WorkerDocument]


class QueueDocument(Document):
    """What waits for one pipeline's stage."""

    name: str
    pipeline: str
    stage: str
    waiting: int
    waiting_images: int
    running: int
    oldest_seconds: float | None
    workers: int
    workers_idle: int
    workers_drained: int
    seconds_per_image: float | None
    seconds_to_empty: float | None
    paused_jobs: int
    held_jobs: int
    hints: list[Any]


class Queues(Document):
    """All queues that have work or a live worker."""

    queues: list[QueueDocument]


class Hours(IntEnum):
    """How far back figures go."""

    HOUR = 1
    DAY = 24
    WEEK = 168


class MetricsQuery(Query):
    """How far back."""

    hours: Annotated[Whole, Field(description="1, 24 or 168", json_schema_extra={"enum": [1, 24, 168]})] = 1


class Metrics(Document):
    """One list per series over the times in `start`."""

    hours: int
    step_seconds: int
    start: list[int]
    pictures_per_minute: list[float | None]
    waiting: dict[str, list[int | None]]
    seconds_per_image: dict[str, list[float | None]]
    failures: list[int | None]


class ActivitiesQuery(Query):
    """Which activities."""

    limit: Annotated[Whole, Field(ge=1, le=500)] = 50
    before: Number | None = Field(default=None, description="`next` of the last page")
    actor: Annotated[str, Field(max_length=200)] | None = None
    action: Annotated[str, Field(max_length=200)] | None = None
    job: Number | None = None


class ActivityDocument(Document):
    """What somebody did."""

    id: int
    at: datetime
    actor: str
    action: str
    job_id: int | None
    details: dict[str, Any]


class Activities(Document):
    """The activity log."""

    activities: list[ActivityDocument]
    next: int | None


def _some_of(kinds: Iterable[str]) -> Any:
    """Kinds with commas between them."""
    one = f"({'|'.join(map(re.escape, kinds))})"
    return Annotated[
        str,
        Field(
            max_length=1000,
            description="kinds with commas between",
            json_schema_extra={"pattern": rf"^{one}(,{one})*$"},
        ),
    ]


FarmKinds = _some_of(KINDS)
JobKinds = _some_of((*KINDS, "progress"))


class JobEventsQuery(Query):
    """Which events of a job."""

    after: Annotated[str, Field(pattern=r"^\d{1,19}$", description="the number of an event")] | None = None
    kinds: JobKinds | None = None  # type: ignore[valid-type]


class FarmEventsQuery(Query):
    """Which events."""

    after: Annotated[str, Field(pattern=r"^\d{1,19}\.\d{1,19}$", description="the id of an event")] | None = None
    kinds: FarmKinds | None = None  # type: ignore[valid-type]
