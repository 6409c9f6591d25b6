"""Webhooks: make, change, test; what was delivered, and sending it again."""

from datetime import UTC
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, url_for
from werkzeug.exceptions import Forbidden

from dashboard.api.bodies import read_body
from dashboard.api.operations import describe, read_query
from dashboard.api.schemas.people import (
    Deliveries,
    DeliveriesQuery,
    DeliveryDocument,
    ReplayBody,
    Replayed,
    WebhookBody,
    WebhookChanges,
    WebhookDocument,
    Webhooks,
)
from dashboard.auth import identity, refuse_beyond_scope
from dashboard.context import context
from dashboard.queries.webhooks import DeliveryView, get_delivery, get_webhook, list_deliveries, list_webhooks
from farm import webhooks
from farm.models import Webhook
from farm.roles import Role

blueprint = Blueprint("api_webhooks", __name__)


@blueprint.get("/webhooks")
@describe("webhooks", {200: Webhooks})
def index() -> Response:
    """One's own webhooks; administrators see everybody's."""
    found = list_webhooks(context().engine, identity())
    return jsonify({"webhooks": [webhook_json(webhook) for webhook in found]})


@blueprint.post("/webhooks")
@describe("webhooks", {201: WebhookDocument}, body=WebhookBody)
def create() -> Response:
    """Tell an address of what happens to one's jobs: ``url``, ``kinds`` (all by default), ``all_jobs``."""
    farm, given = context(), read_body(WebhookBody)
    require_all_jobs_may_be_heard(given.all_jobs)
    webhook = webhooks.add_webhook(
        farm.engine, identity().name, given.url, farm.settings.reachable_hosts, given.kinds, all_jobs=given.all_jobs
    )
    response = jsonify(webhook_json(webhook))
    response.status = HTTPStatus.CREATED
    response.location = url_for("api_webhooks.show", webhook_id=webhook.id)
    return response


@blueprint.get("/webhooks/<int:webhook_id>")
@describe("webhooks", {200: WebhookDocument})
def show(webhook_id: int) -> Response:
    """One webhook."""
    return jsonify(webhook_json(_webhook(webhook_id)))


@blueprint.patch("/webhooks/<int:webhook_id>")
@describe("webhooks", {200: WebhookDocument}, body=WebhookChanges)
def change(webhook_id: int) -> Response:
    """Change ``url``, ``kinds``, ``all_jobs`` or ``enabled``."""
    farm, given = context(), read_body(WebhookChanges)
    _webhook(webhook_id)
    require_all_jobs_may_be_heard(given.all_jobs)
    webhooks.change_webhook(
        farm.engine, webhook_id, farm.settings.reachable_hosts, identity().name, **given.model_dump()
    )
    return show(webhook_id)


@blueprint.delete("/webhooks/<int:webhook_id>")
@describe("webhooks", {204: None})
def delete(webhook_id: int) -> tuple[str, int]:
    """Forget a webhook with its deliveries."""
    _webhook(webhook_id)
    webhooks.delete_webhook(context().engine, webhook_id, identity().name)
    return "", HTTPStatus.NO_CONTENT


@blueprint.post("/webhooks/<int:webhook_id>/secret")
@describe("webhooks", {200: WebhookDocument})
def rotate(webhook_id: int) -> Response:
    """A new secret; for a day messages are signed with the one before, too."""
    _webhook(webhook_id)
    webhooks.rotate_secret(context().engine, webhook_id, identity().name)
    return show(webhook_id)


@blueprint.post("/webhooks/<int:webhook_id>/test")
@describe("webhooks", {202: DeliveryDocument})
def test(webhook_id: int) -> tuple[Response, int]:
    """Send an event of the kind ``webhook.test``; 409 if the webhook is disabled."""
    _webhook(webhook_id)
    return _delivery(webhook_id, webhooks.send_test(context().engine, webhook_id))


@blueprint.get("/webhooks/<int:webhook_id>/deliveries")
@describe("webhooks", {200: Deliveries}, query=DeliveriesQuery)
def deliveries(webhook_id: int) -> Response:
    """What was sent or is to be, the newest first; ``next`` is the ``before`` of the next page."""
    _webhook(webhook_id)
    asked = read_query(DeliveriesQuery)
    page = list_deliveries(context().engine, webhook_id, asked.limit, asked.before, asked.state)
    told = [delivery_json(view) for view in page.entries]
    return jsonify({"deliveries": told, "next": page.entries[-1].delivery.id if page.more else None})


@blueprint.post("/webhooks/<int:webhook_id>/deliveries/<int:delivery_id>/replay")
@describe("webhooks", {202: DeliveryDocument})
def replay(webhook_id: int, delivery_id: int) -> tuple[Response, int]:
    """Send one again, now; 409 if the webhook is disabled."""
    _webhook(webhook_id)
    webhooks.replay(context().engine, webhook_id, delivery_id)
    return _delivery(webhook_id, delivery_id)


@blueprint.post("/webhooks/<int:webhook_id>/replay")
@describe("webhooks", {202: Replayed}, body=ReplayBody)
def replay_failed(webhook_id: int) -> tuple[Response, int]:
    """Send again what failed of the events ``since`` a time; ``replayed`` says how many. 409 if it is disabled."""
    _webhook(webhook_id)
    since = read_body(ReplayBody).since
    replayed = webhooks.replay_failed(
        context().engine, webhook_id, since if since.tzinfo else since.replace(tzinfo=UTC)
    )
    return jsonify({"replayed": replayed}), HTTPStatus.ACCEPTED


def require_all_jobs_may_be_heard(all_jobs: bool | None) -> None:
    """Raise Forbidden for somebody who wants to be told of everybody's jobs, and is no operator."""
    if not all_jobs:
        return
    who = identity()
    if not who.role.includes(Role.OPERATOR):
        raise Forbidden(f"Being told of all jobs takes the role {Role.OPERATOR}, and {who.name} is {who.role}.")
    if who.token is not None:
        refuse_beyond_scope(who.token, Role.OPERATOR)


def shows_secret(webhook: Webhook) -> bool:
    """Whether who asks may see it: the owner, but by no token that may do less."""
    who = identity()
    return webhook.owner == who.name and (who.token is None or not who.token.is_restricted)


def webhook_json(webhook: Webhook) -> dict[str, Any]:
    """A webhook as the API shows it."""
    return {
        "id": webhook.id,
        "owner": webhook.owner,
        "url": webhook.url,
        "kinds": webhook.kinds,
        "all_jobs": webhook.all_jobs,
        "enabled": webhook.disabled_at is None,
        "disabled_at": webhook.disabled_at and webhook.disabled_at.isoformat(),
        "disabled_because": webhook.disabled_because,
        "failing_since": webhook.failing_since and webhook.failing_since.isoformat(),
        "created_at": webhook.created_at.isoformat(),
        "secret": webhook.secret if shows_secret(webhook) else None,
        "deliveries_url": url_for("api_webhooks.deliveries", webhook_id=webhook.id),
    }


def delivery_json(view: DeliveryView) -> dict[str, Any]:
    """A delivery as the API shows it."""
    delivery, event = view.delivery, view.event
    return {
        "id": delivery.id,
        "message_id": f"evt_{event.id}",
        "kind": event.kind,
        "job_id": event.job_id,
        "index": event.image_index,
        "at": event.at.isoformat(),
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "attempted_at": delivery.attempted_at and delivery.attempted_at.isoformat(),
        "next_attempt_at": delivery.next_attempt_at and delivery.next_attempt_at.isoformat(),
        "delivered_at": delivery.delivered_at and delivery.delivered_at.isoformat(),
        "status": delivery.status,
        "error": delivery.error,
    }


def _webhook(webhook_id: int) -> Webhook:
    return get_webhook(context().engine, identity(), webhook_id)


def _delivery(webhook_id: int, delivery_id: int) -> tuple[Response, int]:
    return jsonify(delivery_json(get_delivery(context().engine, webhook_id, delivery_id))), HTTPStatus.ACCEPTED
