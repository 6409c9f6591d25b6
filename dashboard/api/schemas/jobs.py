"""Jobs and images."""

from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model

from dashboard.api.bodies import Body, shown
from dashboard.api.operations import Document, Moment, Number, Query, Whole
from dashboard.queries.paging import MAX_ID
from dashboard.steering import MAX_JOBS
from farm.models import MAX_TAGS
from farm.picture_filter import Mark
from farm.spec import MAX_KEEP_DAYS, ImageParameters, SaidPriority
from farm.states import ImageState, JobState

Text = Annotated[str, Field(max_length=500)]
PLACE = {"pattern": "^[0-9]{1,19}:[0-9]{1,19}$"}
JobNumber = Annotated[int, Field(ge=0, le=MAX_ID)]


class JobsQuery(Query):
    """Which jobs."""

    limit: Annotated[Whole, Field(ge=1, le=500, description="entries of a page")] = 20
    before: Number | None = Field(default=None, description="`next` of the last page")
    state: JobState | None = None
    owner: Text | None = None
    pipeline: Text | None = None
    q: Text | None = Field(default=None, description="part of the name")
    since: Moment | None = Field(default=None, description="submitted at this time (ISO 8601) or later")
    until: Moment | None = Field(default=None, description="submitted before this time (ISO 8601)")
    finished: Literal["true", "false"] | None = Field(default=None, description="true or false: whether they ended")


class Counts(Document):
    """Images of a job by their state."""

    total: int
    completed: int
    failed: int
    cancelled: int
    pending: int
    removed: int
    """Of the completed ones: those whose pictures were removed."""


class JobDocument(Document):
    """A job."""

    id: int
    name: str
    owner: str
    pipeline: str
    priority: int
    after: int | None = Field(description="the job whose end it waits for")
    requires: str = Field(description="what a worker's tags must satisfy")
    max_devices: int | None
    deadline: datetime | None
    state: JobState
    paused: bool
    test_images: int | None
    images: Counts
    keep_days: int | None
    keep_starred: bool | None
    progress: float
    images_per_minute: float | None
    seconds_left: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    url: str
    images_url: str


class JobPage(Document):
    """Jobs, and where the next page begins."""

    jobs: list[JobDocument]
    next: int | None


class Reason(Document):
    """Why images failed, and how many."""

    message: str
    count: int


class Forecast(Document):
    """When an unfinished job will be done, if the workers stay as they are."""

    seconds_left: float
    seconds_late: float | None = Field(description="behind its deadline; negative: before it")


class JobDetails(JobDocument):
    """A job with what it was submitted with."""

    spec: dict[str, Any]
    errors: list[Reason]
    forecast: Forecast | None


class RetryQuery(Query):
    """What is rendered again."""

    removed: Literal["true", "false"] | None = Field(
        default=None, description="true: what was removed, not what failed"
    )


class RetriedJob(JobDocument):
    """A job of which images are rendered again."""

    retried: int


class JobChanges(Body):
    """What a job has from now on. `null` takes all but the name and the priority away."""

    priority: SaidPriority = 50
    name: str | None = Field(default=None, max_length=200)
    max_devices: int | None = Field(default=None, ge=1, description="so many devices render it at once, at most")
    deadline: AwareDatetime | None = Field(default=None, description="when it should be done, with a time zone")
    keep_days: int | None = Field(default=None, ge=1, le=MAX_KEEP_DAYS, description="null: as the owner's policy says")
    keep_starred: bool | None = Field(default=None, description="null: as the owner's policy says")

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, **shown(priority=80, name="posters")})


class ActionBody(Body):
    """One thing for many jobs."""

    action: Literal["pause", "resume", "cancel", "retry", "priority", "delete"]
    jobs: list[JobNumber] = Field(max_length=MAX_JOBS)
    priority: SaidPriority = Field(default=50, description="with the action `priority`")

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"action": {"const": "priority"}}},
            "then": {"required": ["priority"]},
            **shown(action="priority", jobs=[1, 2], priority=80),
        }
    )


class Outcome(Document):
    """What became of one job."""

    job: int
    done: bool
    reason: str | None


class Outcomes(Document):
    """What became of each job."""

    outcomes: list[Outcome]


class FilterQuery(Query):
    """Which images."""

    state: ImageState | None = None
    mark: Mark | None = None
    tag: Text | None = None
    q: Text | None = Field(default=None, description="words of the prompt")
    seed: Number | None = None


class ChosenQuery(FilterQuery):
    """Which images of one job."""

    images: Annotated[str, Field(max_length=10_000, description="indices: 0,5,7-9")] | None = None


class JobImagesQuery(ChosenQuery):
    """A page of a job's images."""

    limit: Annotated[Whole, Field(ge=1, le=500)] = 100
    after: Number | None = Field(default=None, description="`next` of the last page")


class ImagesQuery(FilterQuery):
    """A page of all jobs' images."""

    limit: Annotated[Whole, Field(ge=1, le=500)] = 100
    before: Annotated[str, Field(description="`next` of the last page", json_schema_extra=PLACE)] | None = None


class FileQuery(Query):
    """How a file is sent."""

    download: Annotated[str, Field(max_length=10, description="1: under its download name")] | None = None
    v: Text | None = Field(default=None, description="anything: another address for another picture")


class ThumbnailQuery(Query):
    """Which thumbnail."""

    v: Text | None = Field(default=None, description="anything: another address for another picture")


class PreviewQuery(Query):
    """Which preview."""

    at: Text | None = Field(default=None, description="anything: another address asks anew")


class _ImageDocument(Document):
    job_id: int
    index: int
    state: ImageState
    sha256: str | None
    error: str | None
    rating: int
    tags: list[str]
    finished_at: datetime | None
    removed_at: datetime | None
    download_name: str
    url: str
    file_url: str | None
    thumbnail_url: str | None
    latents_url: str | None


#: An image, with everything that decides what it looks like.
ImageDocument = cast(
    "type[BaseModel]",
    create_model(
        "Image",
        __base__=_ImageDocument,
        **{
            name: ((Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation) | None, None)  # type: ignore[operator]
            for name, info in ImageParameters.model_fields.items()
        },  # type: ignore[call-overload]
    ),
)


class ImagePage(Document):
    """Images, and where the next page begins."""

    images: list[ImageDocument]  # type: ignore[valid-type]
    next: int | None


class ImagesPage(Document):
    """Images of all jobs, and where the next page begins."""

    images: list[ImageDocument]  # type: ignore[valid-type]
    next: str | None


Tags = list[Annotated[str, Field(min_length=1, max_length=50)]]
Rating = Annotated[int, Field(ge=-1, le=1)]


class MarkBody(Body, json_schema_extra=shown(rating=1, tags=["cover"])):
    """What becomes of an image's marks."""

    rating: Rating = 0
    tags: Tags = Field(default=[], max_length=MAX_TAGS)


class ChosenBody(Body, json_schema_extra=shown(images="0,5,7-9")):
    """Which images of a job."""

    images: list[Annotated[int, Field(ge=0)]] | str | None = None
    filter: dict[str, str | int] = Field(default={})


class MarksBody(ChosenBody, json_schema_extra=shown(filter={"q": "fox"}, add_tags=["cover"])):
    """What becomes of the marks of many images."""

    rating: Rating = 0
    tags: Tags = Field(default=[], max_length=MAX_TAGS)
    add_tags: Tags = Field(default=[], max_length=MAX_TAGS)
    remove_tags: Tags = Field(default=[], max_length=MAX_TAGS)


class Marked(Document):
    """How many images were marked."""

    marked: int
