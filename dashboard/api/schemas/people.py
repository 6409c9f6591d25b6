"""People and programs: users, tokens, links; webhooks and their deliveries."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from dashboard.api.bodies import Body, shown
from dashboard.api.operations import Document, Number, Query, Whole
from farm.events import KINDS
from farm.limits import MAX_LIMIT, Scope
from farm.people import MAX_TOKEN_DAYS
from farm.roles import Role
from farm.states import DeliveryState

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


class TokenUse(Document):
    """The token that was shown: what it may do, and what of that is used up."""

    scopes: list[Scope]
    requests_per_minute: int | None
    images_per_day: int | None
    concurrent_images: int | None
    largest_job: int | None
    images_today: int
    images_unfinished: int


class Me(Document):
    """Who asks."""

    id: int
    name: str
    role: Role
    token: TokenUse | None


class TokenBody(Body, json_schema_extra=shown(name="nightly script", scopes=["read", "submit"], days=365)):
    """A new token; what is left out is as much as its user may."""

    name: str
    scopes: Annotated[list[str], Field(min_length=1)] | None = None
    days: Annotated[int, Field(ge=1, le=MAX_TOKEN_DAYS)] | None = None
    requests_per_minute: Limit | None = None
    images_per_day: Limit | None = None
    concurrent_images: Limit | None = None
    largest_job: Limit | None = None


class TokenDocument(Document):
    """A token, without its secret."""

    id: int
    name: str
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    scopes: list[str] | None
    requests_per_minute: int | None
    images_per_day: int | None
    concurrent_images: int | None
    largest_job: int | None


class NewToken(TokenDocument):
    """A token with its secret, this once."""

    token: str


class Tokens(Document):
    """One's own tokens."""

    tokens: list[TokenDocument]


class UserBody(Body, json_schema_extra=shown(name="ana", role="submitter")):
    """A new user."""

    name: str
    role: str
    password: str | None = None


class UserChanges(Body, json_schema_extra=shown(role="operator")):
    """What becomes of a user."""

    role: str | None = None
    password: str | None = None
    disabled: bool | None = None


class UserDocument(Document):
    """Somebody who may log in."""

    id: int
    name: str
    role: Role
    has_password: bool
    disabled: bool
    created_at: datetime


class Users(Document):
    """All users."""

    users: list[UserDocument]


class LinkBody(Body, json_schema_extra=shown(user="ana")):
    """Whom a link is for; left out, whoever asks."""

    user: str | None = None


class LinkDocument(Document):
    """A link that logs in once."""

    user: str
    url: str
    minutes: int


Kinds = Annotated[
    list[Annotated[str, Field(json_schema_extra={"enum": [*KINDS]})]], Field(json_schema_extra={"minItems": 1})
]


class WebhookBody(Body, json_schema_extra=shown(url="https://example.org/farm", kinds=["job.completed"])):
    """An address that is told of events."""

    url: str
    kinds: Kinds | None = None
    all_jobs: bool = False


class WebhookChanges(Body, json_schema_extra=shown(enabled=True)):
    """What becomes of a webhook."""

    url: str | None = None
    kinds: Kinds | None = None
    all_jobs: bool | None = None
    enabled: bool | None = None


class ReplayBody(Body, json_schema_extra=shown(since="2026-01-31T12:00:00Z")):
    """From when on."""

    since: datetime


class WebhookDocument(Document):
    """An address that is told of events."""

    id: int
    owner: str
    url: str
    kinds: list[str]
    all_jobs: bool
    enabled: bool
    disabled_at: datetime | None
    disabled_because: str | None
    failing_since: datetime | None
    created_at: datetime
    secret: str | None
    deliveries_url: str


class Webhooks(Document):
    """Webhooks."""

    webhooks: list[WebhookDocument]


class DeliveriesQuery(Query):
    """Which deliveries."""

    limit: Annotated[Whole, Field(ge=1, le=500)] = 50
    before: Number | None = Field(default=None, description="`next` of the last page")
    state: DeliveryState | None = None


class DeliveryDocument(Document):
    """An event on its way to a webhook."""

    id: int
    message_id: str
    kind: str
    job_id: int | None
    index: int | None
    at: datetime
    state: DeliveryState
    attempts: int
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    status: int | None
    error: str | None


class Deliveries(Document):
    """Deliveries, and where the next page begins."""

    deliveries: list[DeliveryDocument]
    next: int | None


class Replayed(Document):
    """How many are sent again."""

    replayed: int


Details = dict[str, Any]
