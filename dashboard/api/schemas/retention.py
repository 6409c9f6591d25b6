"""Policies of retention, and what they remove."""

from datetime import datetime

from pydantic import Field

from dashboard.api.bodies import Body, shown
from dashboard.api.operations import Document
from farm.retention import MAX_BYTES, Reason
from farm.spec import MAX_KEEP_DAYS


class PolicyBody(Body, json_schema_extra=shown(keep_days=90, keep_starred=True)):
    """What of an owner's pictures is kept; what is left out, for ever."""

    keep_days: int | None = Field(default=None, ge=1, le=MAX_KEEP_DAYS)
    keep_starred: bool = True
    max_bytes: int | None = Field(default=None, ge=0, le=MAX_BYTES)


class PolicyDocument(Document):
    """What of an owner's pictures is kept."""

    owner: str
    keep_days: int | None
    keep_starred: bool
    max_bytes: int | None
    updated_at: datetime


class Policies(Document):
    """All policies."""

    policies: list[PolicyDocument]


class RunBody(Body, json_schema_extra=shown(dry_run=True)):
    """Whether it is only told what would go."""

    dry_run: bool = False


class RemovalDocument(Document):
    """What went, or would go, of one owner for one reason."""

    owner: str
    reason: Reason
    jobs: int
    pictures: int
    inputs: int
    bytes: int


class RunDocument(Document):
    """What went, or would go."""

    dry_run: bool
    finished: bool
    removals: list[RemovalDocument]
