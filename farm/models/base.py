"""What all tables have in common: names of constraints, and types of columns."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    DateTime,
    Enum,
    MetaData,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from farm.roles import Role
from farm.states import BatchState, DeliveryState, ImageState, JobState, Stage


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
