"""The tables. Postgres holds the invariants: what a state implies is a CHECK, not a habit."""

from farm.models.base import Base
from farm.models.people import Activity, ApiToken, LoginLink, LoginSession, TokenDay, User
from farm.models.programs import Delivery, DoomedObject, Event, IdempotencyKey, Secret, Webhook
from farm.models.rendering import (
    MAX_TAGS,
    Batch,
    Image,
    Input,
    InputName,
    Job,
    Preset,
    QueueMinute,
    RenderMinute,
    RenderTotal,
    Share,
    WordList,
    Worker,
)
from farm.models.retention import JobInput, RetentionPolicy

__all__ = [
    "MAX_TAGS",
    "Activity",
    "ApiToken",
    "Base",
    "Batch",
    "Delivery",
    "DoomedObject",
    "Event",
    "IdempotencyKey",
    "Image",
    "Input",
    "InputName",
    "Job",
    "JobInput",
    "LoginLink",
    "LoginSession",
    "Preset",
    "QueueMinute",
    "RenderMinute",
    "RenderTotal",
    "RetentionPolicy",
    "Secret",
    "Share",
    "TokenDay",
    "User",
    "Webhook",
    "WordList",
    "Worker",
]
