"""Jobs, their batches and images; what goes into them, and who renders them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from farm.models.base import Base
from farm.states import BatchState, ImageState, JobState, Stage

#: Tags of one image.
MAX_TAGS = 20


class Job(Base):
    """What one person submitted. The counts of images are rolled up in ``farm.transitions`` alone."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("(finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled'))", "finished"),
        CheckConstraint(
            "state NOT IN ('completed', 'failed') OR images_completed + images_failed = image_count", "all_ended"
        ),
        CheckConstraint("state <> 'completed' OR images_failed = 0", "completed_without_failure"),
        CheckConstraint("state <> 'failed' OR images_failed > 0", "failed_with_failure"),
        CheckConstraint("paused_at IS NULL OR finished_at IS NULL", "paused_while_unfinished"),
        CheckConstraint("image_count > 0", "not_empty"),
        CheckConstraint("max_devices > 0", "max_devices"),
        CheckConstraint(
            "images_completed >= 0 AND images_failed >= 0 AND images_completed + images_failed <= image_count", "counts"
        ),
        CheckConstraint("images_removed BETWEEN 0 AND images_completed", "removed_were_completed"),
        CheckConstraint("picture_bytes >= 0", "picture_bytes"),
        CheckConstraint("keep_days >= 1", "keep_days"),
        Index("ix_jobs_unfinished", "id", postgresql_where=text("finished_at IS NULL")),
        Index("ix_jobs_after_job_id", "after_job_id", postgresql_where=text("after_job_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str]
    owner: Mapped[str] = mapped_column(server_default="")
    pipeline: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="50")
    state: Mapped[JobState] = mapped_column(server_default=JobState.QUEUED)
    spec: Mapped[dict[str, Any]]
    """The submission's own parameters, without its rows: those are the images."""
    image_count: Mapped[int] = mapped_column(Integer)
    images_completed: Mapped[int] = mapped_column(Integer, server_default="0")
    images_failed: Mapped[int] = mapped_column(Integer, server_default="0")
    images_removed: Mapped[int] = mapped_column(Integer, server_default="0")
    """Of the completed ones: those whose pictures are in the store no more."""
    picture_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Of its pictures that are in the store, as far as their sizes are known."""
    keep_days: Mapped[int | None] = mapped_column(Integer)
    """How long its pictures are kept after its end; NULL is as long as its owner's policy says."""
    keep_starred: Mapped[bool | None]
    """Whether starred ones stay in spite of that; NULL is as its owner's policy says."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    """Set while no further batch of it may begin."""
    token_id: Mapped[int | None] = mapped_column(BigInteger)
    """The API token that submitted it, kept when the token is gone: its quotas count what is unfinished."""
    test_images: Mapped[int | None] = mapped_column(Integer)
    """Set during a test run: only so many images, from the first, are rendered until somebody lets the rest follow."""
    after_job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    """The job whose end it waits for, however that ends."""
    requires: Mapped[str] = mapped_column(server_default="")
    """What a worker's tags must satisfy (``farm.tags``), in its normal form."""
    max_devices: Mapped[int | None] = mapped_column(Integer)
    """At most so many of its batches are on their way at once."""
    deadline: Mapped[datetime | None]
    """When it should have ended; shown with a forecast, it changes no order."""
    traceparent: Mapped[str | None]
    """The trace that its submission began (W3C Trace Context): whoever renders it goes on with it."""


class Batch(Base):
    """Images of one job that share a pipeline call: the unit of dispatch, lease and retry."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", "leased_while_running"),
        CheckConstraint("state <> 'running' OR worker_id IS NOT NULL", "running_on_a_worker"),
        CheckConstraint("(state = 'queued') = (queued_at IS NOT NULL)", "queued_since"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'split', 'cancelled'))", "finished"
        ),
        CheckConstraint("(latents_key IS NULL) = (latents_sha256 IS NULL)", "latents_with_hash"),
        CheckConstraint(
            "state NOT IN ('ready', 'queued', 'running') OR (stage = 'refiner') = (latents_key IS NOT NULL)",
            "refiner_has_latents",
        ),
        CheckConstraint("attempt >= 0 AND failures >= 0", "counts"),
        # Dispatch takes a job's next batches in order; recovery looks at those that are on their way.
        Index("ix_batches_ready", "job_id", "id", postgresql_where=text("state = 'ready' AND NOT held")),
        Index("ix_batches_active", "state", postgresql_where=text("state IN ('queued', 'running')")),
        Index("ix_batches_job_id", "job_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    state: Mapped[BatchState] = mapped_column(server_default=BatchState.READY)
    held: Mapped[bool] = mapped_column(server_default=false())
    """Waits for the end of its job's test run: it is not dispatched before somebody lets it."""
    stage: Mapped[Stage] = mapped_column(server_default=Stage.BASE)
    parameters: Mapped[dict[str, Any]]
    """``farm.spec.SharedParameters`` of its images."""
    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    """Number of the latest dispatch: the fencing token. A worker's write carries it or changes no row."""
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    error: Mapped[str | None]
    """Why the latest failed attempt failed."""
    run_after: Mapped[datetime] = mapped_column(server_default=func.now())
    worker_id: Mapped[str | None]
    """Who holds, or last held, the lease."""
    lease_until: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    latents_key: Mapped[str | None]
    latents_sha256: Mapped[str | None]
    base_seconds: Mapped[float | None]
    refiner_seconds: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Image(Base):
    """One picture of a job."""

    __tablename__ = "images"
    __table_args__ = (
        CheckConstraint(
            "(image_key IS NOT NULL) = (state = 'completed' AND removed_at IS NULL)", "completed_has_picture"
        ),
        CheckConstraint("removed_at IS NULL OR state = 'completed'", "removed_was_completed"),
        CheckConstraint("(image_key IS NULL) = (thumbnail_key IS NULL)", "picture_with_thumbnail"),
        CheckConstraint("(sha256 IS NOT NULL) = (state = 'completed')", "completed_has_hash"),
        CheckConstraint("(error IS NOT NULL) = (state = 'failed')", "failed_has_reason"),
        CheckConstraint("(finished_at IS NOT NULL) = (state <> 'pending')", "finished"),
        CheckConstraint("seed >= 0", "seed"),
        CheckConstraint('"index" >= 0', "index"),
        CheckConstraint("rating BETWEEN -1 AND 1", "rating"),
        CheckConstraint(f"cardinality(tags) <= {MAX_TAGS}", "tag_count"),
        Index("ix_images_batch_id", "batch_id"),
        # Open pages ask what ended since they last looked; failures are grouped by their reason; galleries are
        # filtered by marks and words. Each of these holds only the rows that matter, so that submission stays fast.
        Index("ix_images_ended", "job_id", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_images_failed", "job_id", "index", postgresql_where=text("state = 'failed'")),
        Index("ix_images_completed", "job_id", "index", postgresql_where=text("state = 'completed'")),
        Index("ix_images_rated", "job_id", "index", postgresql_where=text("rating <> 0")),
        Index("ix_images_seed", "seed"),
        Index("ix_images_tagged", "job_id", "index", postgresql_where=text("tags <> '{}'")),
        Index("ix_images_tags", "tags", postgresql_using="gin", postgresql_where=text("tags <> '{}'")),
        Index("ix_images_words", "words", postgresql_using="gin"),
    )

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True)
    """Place in the order of submission, counted from 0."""
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    state: Mapped[ImageState] = mapped_column(server_default=ImageState.PENDING)
    prompt: Mapped[str]
    negative_prompt: Mapped[str | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    parameters: Mapped[dict[str, Any] | None]
    """What else is its own among the parameters (``farm.spec.OWN_FIELDS``); NULL for most."""
    image_key: Mapped[str | None]
    thumbnail_key: Mapped[str | None]
    sha256: Mapped[str | None]
    picture_bytes: Mapped[int | None] = mapped_column(Integer)
    """Size of the picture; NULL for those of older versions until somebody looked (``producer.orphans``)."""
    error: Mapped[str | None]
    finished_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    """When the picture was removed from the store. The row stays: what it was made from, and the hash that it had."""
    rating: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """What people think of it: 1 starred, -1 rejected, 0 neither."""
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    words: Mapped[str] = mapped_column(
        TSVECTOR, Computed("to_tsvector('simple', prompt)", persisted=True), deferred=True
    )
    """The prompt's, to search for. Stored: a search would else take them out of each prompt anew."""


class Input(Base):
    """A picture that goes in: an object of the store, known by the hash of its bytes, which the farm wrote."""

    __tablename__ = "inputs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    """Upright, in pixels."""
    size: Mapped[int] = mapped_column(BigInteger)
    """In bytes."""
    media_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When somebody last uploaded it, or named it in a submission; to the hour."""


class InputName(Base):
    """What was sent when a picture was stored: the same bytes need not be sent again."""

    __tablename__ = "input_names"

    sent: Mapped[str] = mapped_column(primary_key=True)
    """SHA-256 of what was sent."""
    sha256: Mapped[str] = mapped_column(ForeignKey("inputs.sha256", ondelete="CASCADE"), index=True)


class WordList(Base):
    """Words that a prompt template names as ``__name__``."""

    __tablename__ = "word_lists"

    name: Mapped[str] = mapped_column(primary_key=True)
    words: Mapped[list[str]] = mapped_column(ARRAY(Text))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Preset(Base):
    """Fields of a job under a name, to be submitted again and again."""

    __tablename__ = "presets"
    __table_args__ = (UniqueConstraint("owner", "name"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    shared: Mapped[bool] = mapped_column(server_default=false())
    """Whether everybody sees it."""
    fields: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Share(Base):
    """How much an owner gets beside others; whoever has no row counts 1."""

    __tablename__ = "shares"
    __table_args__ = (CheckConstraint("weight > 0 AND weight <= 1000", "weight"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    weight: Mapped[float]


class Worker(Base):
    """One process on one device, as it last reported itself."""

    __tablename__ = "workers"
    __table_args__ = (Index("ix_workers_heartbeat_at", "heartbeat_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    hostname: Mapped[str]
    process_id: Mapped[int] = mapped_column(Integer)
    device: Mapped[str]
    device_name: Mapped[str]
    pipeline: Mapped[str]
    stages: Mapped[list[str]] = mapped_column(ARRAY(Text))
    images_completed: Mapped[int] = mapped_column(Integer, server_default="0")
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it last renewed its leases; a worker is live while this is younger than the lease."""
    stopped_at: Mapped[datetime | None]
    """Set when it said goodbye; a killed worker never does."""
    stopped_because: Mapped[str | None]
    """What of its device made it end."""
    draining_at: Mapped[datetime | None]
    """Set while an operator wants it to take no further batch."""
    restarts: Mapped[int] = mapped_column(Integer, server_default="0")
    """How often its supervisor had to start this device's process again."""
    memory_used: Mapped[int | None] = mapped_column(BigInteger)
    memory_total: Mapped[int | None] = mapped_column(BigInteger)
    """Of the device, in bytes: on a GPU all that is taken there, on a CPU what this process takes."""
    utilisation: Mapped[float | None]
    """Share of the time since the last heartbeat that the device computed, 0 to 1."""
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    """What jobs may require of it (``farm.tags``)."""
    resting: Mapped[bool] = mapped_column(Boolean, server_default="false")
    """Whether it takes no batch now because of the hours that it was given."""
    flexible: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    """What of it the leading producer may change: its ``pipeline``, its ``stages``, or nothing."""
    could_serve: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    """Pipelines of its catalog that fit its device and that its machine holds: what it may be told to serve."""
    holds: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    """Entries of its catalog that its machine has complete: ``pipelines.sdxl-1.0``."""
    wanted_pipeline: Mapped[str | None]
    wanted_stages: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """What it shall serve from now on; it learns it by its heartbeat, and comes back as another worker."""
    load_seconds: Mapped[float | None]
    """How long it took to load what it serves."""
    temperature_celsius: Mapped[float | None]
    power_watts: Mapped[float | None]
    ecc_errors: Mapped[int | None] = mapped_column(BigInteger)
    """Memory errors of the GPU that could not be corrected, since its driver was loaded."""
    xid_errors: Mapped[int | None] = mapped_column(Integer)
    """Critical errors that the GPU's driver told of since this worker started."""
    last_xid: Mapped[int | None] = mapped_column(Integer)
    """The number (Xid) of the latest of them."""
    batch_sizes: Mapped[dict[str, Any] | None]
    """How many images a call takes best, as this device measured it: by stage, then by size as 1024x1024."""


class RenderMinute(Base):
    """What one worker rendered within one minute: from these rows come rates, durations, failures and estimates.

    Added up in the transaction that ends a stage; a worker has rows of its own, so that no two wait for each other.
    """

    __tablename__ = "render_minutes"

    minute: Mapped[datetime] = mapped_column(primary_key=True)
    worker_id: Mapped[str] = mapped_column(primary_key=True)
    pipeline: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[Stage] = mapped_column(primary_key=True)
    batches: Mapped[int] = mapped_column(Integer, server_default="0")
    """Stages of batches that ended well."""
    images: Mapped[int] = mapped_column(Integer, server_default="0")
    """Images of those batches."""
    pictures: Mapped[int] = mapped_column(Integer, server_default="0")
    """Images that were finished with it: those that a refiner follows do not count."""
    seconds: Mapped[float] = mapped_column(server_default="0")
    """The device's time for them."""
    megapixel_steps: Mapped[float] = mapped_column(server_default="0")
    """Their denoising: megapixels of each image times its steps in this stage."""
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    """Attempts that failed."""
    retries: Mapped[int] = mapped_column(Integer, server_default="0")
    """Of these, those whose batch is tried again as it is."""
    expiries: Mapped[int] = mapped_column(Integer, server_default="0")
    """Of the failures, those by a lease that ran out."""
    empty_claims: Mapped[int] = mapped_column(Integer, server_default="0")
    """Messages whose batch was not there to be claimed: they were stale or doubled."""


class RenderTotal(Base):
    """All that a pipeline's stage ever rendered, up to a time: minutes are forgotten, and counters may never fall.

    ``until`` is the same in all rows: what came from then on is still in the minutes.
    """

    __tablename__ = "render_totals"

    pipeline: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[Stage] = mapped_column(primary_key=True)
    until: Mapped[datetime]
    batches: Mapped[int] = mapped_column(BigInteger, server_default="0")
    images: Mapped[int] = mapped_column(BigInteger, server_default="0")
    pictures: Mapped[int] = mapped_column(BigInteger, server_default="0")
    seconds: Mapped[float] = mapped_column(server_default="0")
    megapixel_steps: Mapped[float] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(BigInteger, server_default="0")
    retries: Mapped[int] = mapped_column(BigInteger, server_default="0")
    expiries: Mapped[int] = mapped_column(BigInteger, server_default="0")
    empty_claims: Mapped[int] = mapped_column(BigInteger, server_default="0")


class QueueMinute(Base):
    """How much waited, once a minute, as the leading producer saw it."""

    __tablename__ = "queue_minutes"

    minute: Mapped[datetime] = mapped_column(primary_key=True)
    pipeline: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[Stage] = mapped_column(primary_key=True)
    waiting: Mapped[int] = mapped_column(Integer)
    """Batches ready or queued."""
    running: Mapped[int] = mapped_column(Integer)
    oldest_seconds: Mapped[float]
    """Age of the batch that waits longest."""
