"""The tables. Postgres holds the invariants: what a state implies is a CHECK, not a habit."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from farm.states import BatchState, ImageState, JobState, Stage


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
        Stage: _enum(Stage, "stage"),
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
        Index("ix_batches_ready", "job_id", "id", postgresql_where=text("state = 'ready'")),
        Index("ix_batches_active", "state", postgresql_where=text("state IN ('queued', 'running')")),
        Index("ix_batches_job_id", "job_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    state: Mapped[BatchState] = mapped_column(server_default=BatchState.READY)
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
        Index("ix_images_batch_id", "batch_id"),
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
