"""Shares of owners."""

from pydantic import Field

from dashboard.api.bodies import Body, shown
from dashboard.api.operations import Document


class ShareDocument(Document):
    """How much an owner gets beside others."""

    owner: str
    weight: float


class ShareList(Document):
    """The shares that were set; everybody else's weight is 1."""

    shares: list[ShareDocument]


class ShareBody(Body, json_schema_extra=shown(weight=3.0)):
    """A weight."""

    weight: float = Field(gt=0, le=1000)
