"""What pages and API show of webhooks and their deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from dashboard.queries.paging import MAX_ID, Page
from farm.errors import NotFoundError
from farm.models import Delivery, Event, Webhook
from farm.people import Identity
from farm.roles import Role
from farm.states import DeliveryState


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A delivery, and what it tells of."""

    delivery: Delivery
    event: Event


def list_webhooks(engine: Engine, who: Identity) -> Sequence[Webhook]:
    """One's own webhooks, to administrators everybody's; the oldest first."""
    query = select(Webhook).order_by(Webhook.id)
    if not who.role.includes(Role.ADMIN):
        query = query.where(Webhook.owner == who.name)
    with Session(engine, expire_on_commit=False) as session:
        return session.scalars(query).all()


def get_webhook(engine: Engine, who: Identity, webhook_id: int) -> Webhook:
    """One of these; raises NotFoundError."""
    with Session(engine, expire_on_commit=False) as session:
        webhook = session.get(Webhook, webhook_id) if webhook_id <= MAX_ID else None
    if webhook is None or not (webhook.owner == who.name or who.role.includes(Role.ADMIN)):
        raise NotFoundError(f"You have no webhook {webhook_id}.")
    return webhook


def list_deliveries(
    engine: Engine, webhook_id: int, limit: int, before: int | None = None, state: DeliveryState | None = None
) -> Page[DeliveryView]:
    """What was sent, or is to be, to a webhook; the newest first. ``before`` goes on where the last page ended."""
    query = (
        select(Delivery, Event)
        .join(Event, Event.id == Delivery.event_id)
        .where(Delivery.webhook_id == webhook_id)
        .order_by(Delivery.id.desc())
        .limit(limit + 1)
    )
    if before is not None:
        query = query.where(Delivery.id < min(before, MAX_ID))
    if state is not None:
        query = query.where(Delivery.state == state)
    with Session(engine, expire_on_commit=False) as session:
        return Page.of([DeliveryView(*row) for row in session.execute(query)], limit)


def get_delivery(engine: Engine, webhook_id: int, delivery_id: int) -> DeliveryView:
    """One delivery of a webhook; raises NotFoundError."""
    query = (
        select(Delivery, Event)
        .join(Event, Event.id == Delivery.event_id)
        .where(Delivery.webhook_id == webhook_id, Delivery.id == min(delivery_id, MAX_ID))
    )
    with Session(engine, expire_on_commit=False) as session:
        row = session.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"Webhook {webhook_id} has no delivery {delivery_id}.")
    return DeliveryView(*row)
