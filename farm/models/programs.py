"""What programs rely on: events and webhooks, keys of submissions, secrets, objects to remove."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from farm.models.base import Base
from farm.states import DeliveryState


class IdempotencyKey(Base):
    """A submission that its sender may repeat: who says the same again under the same key gets the same receipt."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    receipt: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DoomedObject(Base):
    """An object that no row names any more, which the producer service will remove from the store."""

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
