"""Who may come in, as what, and what they did."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from farm.models.base import Base
from farm.roles import Role


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
