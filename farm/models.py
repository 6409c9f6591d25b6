"""The tables. Postgres holds the invariants: what a state implies is a CHECK, not a habit."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from farm.roles import Role
from farm.states import BatchState, DeliveryState, ImageState, JobState, Stage

#: Tags of one image.
MAX_TAGS = 20


def _enum(states: type[StrEnum], name: str) -> Enum:
    return Enum(states, name=name, values_callable=lambda members: [member.value for member in members])


class Base(DeclarativeBase):
    """Declarative base; the naming convention gives constraints the same name in models and migrations."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        str: Text,
        dict[str, Any]: JSONB,
        JobState: _enum(JobState, "job_state"),
        BatchState: _enum(BatchState, "batch_state"),
        ImageState: _enum(ImageState, "image_state"),
        DeliveryState: _enum(DeliveryState, "delivery_state"),
        Stage: _enum(Stage, "stage"),
        Role: _enum(Role, "role"),
    }


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
        CheckConstraint(
            "images_completed >= 0 AND images_failed >= 0 AND images_completed + images_failed <= image_count", "counts"
        ),
        Index("ix_jobs_unfinished", "id", postgresql_where=text("finished_at IS NULL")),
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
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    """Set while no further batch of it may begin."""
    token_id: Mapped[int | None] = mapped_column(BigInteger)
    """The API token that submitted it, kept when the token is gone: its quotas count what is unfinished."""
    test_images: Mapped[int | None] = mapped_column(Integer)
    """Set during a test run: only so many images, from the first, are rendered until somebody lets the rest follow."""


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
        CheckConstraint("(image_key IS NOT NULL) = (state = 'completed')", "completed_has_picture"),
        CheckConstraint("(image_key IS NULL) = (thumbnail_key IS NULL)", "picture_with_thumbnail"),
        CheckConstraint("(image_key IS NULL) = (sha256 IS NULL)", "picture_with_hash"),
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
    error: Mapped[str | None]
    finished_at: Mapped[datetime | None]
    rating: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """What people think of it: 1 starred, -1 rejected, 0 neither."""
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    words: Mapped[str] = mapped_column(
        TSVECTOR, Computed("to_tsvector('simple', prompt)", persisted=True), deferred=True
    )
    """The prompt's, to search for. Stored: a search would else take them out of each prompt anew."""


class Input(Base):
    """A picture that goes in: an object of the store, known by the hash of its bytes."""

    __tablename__ = "inputs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    """Upright, in pixels."""
    size: Mapped[int] = mapped_column(BigInteger)
    """In bytes."""
    media_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WordList(Base):
    """Words that a prompt template names as ``__name__``."""

    __tablename__ = "word_lists"

    name: Mapped[str] = mapped_column(primary_key=True)
    words: Mapped[list[str]] = mapped_column(ARRAY(Text))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


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
    draining_at: Mapped[datetime | None]
    """Set while an operator wants it to take no further batch."""
    restarts: Mapped[int] = mapped_column(Integer, server_default="0")
    """How often its supervisor had to start this device's process again."""
    memory_used: Mapped[int | None] = mapped_column(BigInteger)
    memory_total: Mapped[int | None] = mapped_column(BigInteger)
    """Of the device, in bytes: on a GPU all that is taken there, on a CPU what this process takes."""
    utilisation: Mapped[float | None]
    """Share of the time since the last heartbeat that the device computed, 0 to 1."""


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


class User(Base):
    """Somebody who may log in."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("name <> ''", "named"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str | None]
    """argon2id; without one, the user enters by a one-time link."""
    role: Mapped[Role]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disabled_at: Mapped[datetime | None]


class LoginSession(Base):
    """A browser that is logged in; known by the hash of what its cookie holds."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_user_id", "user_id"),)

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class LoginLink(Base):
    """A link that logs in once; known by the hash of its secret."""

    __tablename__ = "login_links"

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime]


class ApiToken(Base):
    """What a program shows to act for a user; known by its hash, shown once."""

    __tablename__ = "api_tokens"
    __table_args__ = (Index("ix_api_tokens_user_id", "user_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    """Its first characters, by which its owner knows it again."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    scopes: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """``farm.scopes.Scope``: what it lets in to; NULL is all that its user may do."""
    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    """This, and the three below: NULL is what the settings say."""
    images_per_day: Mapped[int | None] = mapped_column(Integer)
    concurrent_images: Mapped[int | None] = mapped_column(Integer)
    largest_job: Mapped[int | None] = mapped_column(Integer)


class TokenDay(Base):
    """How many images were submitted with a token on one day (UTC). Deleting jobs gives nothing back."""

    __tablename__ = "token_days"

    token_id: Mapped[int] = mapped_column(ForeignKey("api_tokens.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    images: Mapped[int] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    """A submission that its sender may repeat: who says the same again under the same key gets the same receipt."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    receipt: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DoomedObject(Base):
    """An object of a deleted job, which the producer service will remove from the store."""

    __tablename__ = "doomed_objects"

    key: Mapped[str] = mapped_column(primary_key=True)
    not_before: Mapped[datetime]
    """A worker that still renders what was cancelled may write it until then."""


class Secret(Base):
    """What the farm's processes sign with; made by the first that needs it."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Event(Base):
    """Something that happened to a job or an image: written in the transaction that makes it so (``farm.events``)."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_job_id", "job_id", "id"),
        Index("ix_events_transaction", "transaction", "id"),
        Index("ix_events_at", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    """Rises from event to event of one job: they are written with the job's row locked."""
    transaction: Mapped[int] = mapped_column(BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint"))
    """The farm's events in an order that readers can resume: numbers of ``id`` may show up late, transactions that
    are older than all that still run cannot."""
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    kind: Mapped[str]
    """``farm.events.Kind``"""
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    """Kept when the job is deleted. NULL of the test of a webhook alone."""
    image_index: Mapped[int | None] = mapped_column(Integer)
    details: Mapped[dict[str, Any] | None]


class Webhook(Base):
    """An address of a user's that is told of events."""

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint("(old_secret IS NULL) = (old_secret_until IS NULL)", "old_secret_has_its_time"),
        CheckConstraint("disabled_at IS NOT NULL OR disabled_because IS NULL", "reason_of_the_disabled"),
        Index("ix_webhooks_owner", "owner"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    owner: Mapped[str]
    """Name of the user: told of this user's jobs."""
    all_jobs: Mapped[bool] = mapped_column(server_default=false())
    """Whether it is told of everybody's, as long as its owner is an operator."""
    url: Mapped[str]
    secret: Mapped[str]
    """Signs what is sent; as the Standard Webhooks scheme writes it (``whsec_`` and base64)."""
    old_secret: Mapped[str | None]
    """The secret before this one signs, too, until its receivers have learnt the new one."""
    old_secret_until: Mapped[datetime | None]
    kinds: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failing_since: Mapped[datetime | None]
    """When the first of the attempts failed after which none succeeded."""
    disabled_at: Mapped[datetime | None]
    """Set while it is told nothing."""
    disabled_because: Mapped[str | None]
    """Why the farm disabled it; NULL when its owner did."""


class Delivery(Base):
    """One event on its way to one webhook."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("(next_attempt_at IS NOT NULL) = (state = 'pending')", "pending_has_its_time"),
        CheckConstraint("(delivered_at IS NOT NULL) = (state = 'delivered')", "delivered"),
        CheckConstraint("earlier_attempts >= 0 AND attempts >= earlier_attempts", "counts"),
        # A sender takes the due ones of each webhook.
        Index("ix_deliveries_due", "webhook_id", "next_attempt_at", postgresql_where=text("state = 'pending'")),
        Index("ix_deliveries_webhook_id", "webhook_id", "id"),
        Index("ix_deliveries_event_id", "event_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id", ondelete="CASCADE"))
    state: Mapped[DeliveryState] = mapped_column(server_default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    """How often it was tried. The number is the fencing token: what a late sender reports changes no row."""
    earlier_attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    """How many of these were before its latest replay."""
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    """While a sender tries it, the time at which another may: a sender that dies loses nothing."""
    attempted_at: Mapped[datetime | None]
    status: Mapped[int | None] = mapped_column(Integer)
    """HTTP status of the latest answer, if there was one."""
    error: Mapped[str | None]
    """What was wrong with the latest attempt."""
    delivered_at: Mapped[datetime | None]


class Activity(Base):
    """Who did what, and when."""

    __tablename__ = "activities"
    __table_args__ = (
        # What one person did, or how one thing went, may be few rows among millions.
        Index("ix_activities_actor", "actor", "id"),
        Index("ix_activities_action", "action", "id"),
        Index("ix_activities_job_id", "job_id", "id", postgresql_where=text("job_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]
    """Name of the user, kept when the user is gone."""
    action: Mapped[str]
    """Such as ``job.cancel``: what, a dot, and what was done to it."""
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    details: Mapped[dict[str, Any] | None]


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
