"""How long pictures are kept, and what keeps a picture that goes in."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, func, true
from sqlalchemy.orm import Mapped, mapped_column

from farm.models.base import Base


class RetentionPolicy(Base):
    """What of one owner's pictures is kept, and how long; the owner ``*`` stands for all who have no policy."""

    __tablename__ = "retention_policies"
    __table_args__ = (
        CheckConstraint("keep_days >= 1", "keep_days"),
        CheckConstraint("max_bytes >= 0", "max_bytes"),
    )

    owner: Mapped[str] = mapped_column(primary_key=True)
    keep_days: Mapped[int | None] = mapped_column(Integer)
    """Counted from the end of a job; NULL is for ever."""
    keep_starred: Mapped[bool] = mapped_column(server_default=true())
    """Whether starred pictures stay in spite of that."""
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of all the owner's pictures together; the oldest go beyond it."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobInput(Base):
    """A job names a picture that goes in: as long as this row is there, the picture cannot go."""

    __tablename__ = "job_inputs"
    __table_args__ = (Index("ix_job_inputs_sha256", "sha256"),)

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("inputs.sha256"), primary_key=True)
