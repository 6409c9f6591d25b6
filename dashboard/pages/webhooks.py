"""Webhooks: one's own and what was delivered to them."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.api.webhooks import require_all_jobs_may_be_heard, shows_secret
from dashboard.arguments import integer, state
from dashboard.auth import identity
from dashboard.context import context
from dashboard.queries.webhooks import get_webhook, list_deliveries, list_webhooks
from farm import webhooks
from farm.errors import InvalidSubmissionError
from farm.events import KEPT_DAYS, KINDS
from farm.models import Webhook
from farm.states import DeliveryState

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")

DELIVERIES_PER_PAGE = 50

#: What the page says after it was done.
DONE = {
    "made": "The webhook is made. Its secret stands below: give it to the receiver, and send a test.",
    "changed": "The webhook is changed.",
    "enabled": "The webhook is enabled. What it missed can be sent again.",
    "disabled": "The webhook is disabled: nothing is sent to it any more.",
    "secret": "The secret is new. For a day messages are signed with the one before, too.",
    "test": "A test is on its way.",
    "replayed": "It is sent again.",
    "deleted": "The webhook is removed.",
}


@blueprint.get("")
def index() -> str:
    """The list, and the form for another one."""
    return _list()


@blueprint.post("")
def create() -> Response:
    """Make one, and show it."""
    farm, all_jobs = context(), "all_jobs" in request.form
    require_all_jobs_may_be_heard(all_jobs)
    try:
        webhook = webhooks.add_webhook(
            farm.engine,
            identity().name,
            request.form.get("url", ""),
            farm.settings.reachable_hosts,
            request.form.getlist("kinds"),
            all_jobs=all_jobs,
        )
    except InvalidSubmissionError as error:
        return _refused(_list(error))
    return _back(webhook.id, "made")


@blueprint.get("/<int:webhook_id>")
def show(webhook_id: int) -> str:
    """One webhook with its deliveries."""
    return _page(_webhook(webhook_id))


@blueprint.post("/<int:webhook_id>")
def change(webhook_id: int) -> Response:
    """Change its address, and what it is told of."""
    farm, all_jobs, webhook = context(), "all_jobs" in request.form, _webhook(webhook_id)
    require_all_jobs_may_be_heard(all_jobs and not webhook.all_jobs)
    try:
        webhooks.change_webhook(
            farm.engine,
            webhook_id,
            farm.settings.reachable_hosts,
            identity().name,
            url=request.form.get("url", ""),
            kinds=request.form.getlist("kinds"),
            all_jobs=all_jobs,
        )
    except InvalidSubmissionError as error:
        return _refused(_page(webhook, error))
    return _back(webhook_id, "changed")


@blueprint.post("/<int:webhook_id>/enable")
def enable(webhook_id: int) -> Response:
    """Send to it again."""
    _switch(webhook_id, enabled=True)
    return _back(webhook_id, "enabled")


@blueprint.post("/<int:webhook_id>/disable")
def disable(webhook_id: int) -> Response:
    """Send nothing to it."""
    _switch(webhook_id, enabled=False)
    return _back(webhook_id, "disabled")


@blueprint.post("/<int:webhook_id>/secret")
def rotate(webhook_id: int) -> Response:
    """Make a new secret."""
    _webhook(webhook_id)
    webhooks.rotate_secret(context().engine, webhook_id, identity().name)
    return _back(webhook_id, "secret")


@blueprint.post("/<int:webhook_id>/test")
def test(webhook_id: int) -> Response:
    """Send an event that means nothing."""
    _webhook(webhook_id)
    webhooks.send_test(context().engine, webhook_id)
    return _back(webhook_id, "test")


@blueprint.post("/<int:webhook_id>/delete")
def delete(webhook_id: int) -> Response:
    """Forget it."""
    _webhook(webhook_id)
    webhooks.delete_webhook(context().engine, webhook_id, identity().name)
    return redirect(url_for("webhooks.index", done="deleted"), HTTPStatus.SEE_OTHER)


@blueprint.post("/<int:webhook_id>/deliveries/<int:delivery_id>/replay")
def replay(webhook_id: int, delivery_id: int) -> Response:
    """Send one delivery again."""
    _webhook(webhook_id)
    webhooks.replay(context().engine, webhook_id, delivery_id)
    return _back(webhook_id, "replayed")


@blueprint.post("/<int:webhook_id>/replay")
def replay_failed(webhook_id: int) -> Response:
    """Send again all that failed and is kept."""
    _webhook(webhook_id)
    webhooks.replay_failed(context().engine, webhook_id, datetime.now(UTC) - timedelta(days=KEPT_DAYS))
    return _back(webhook_id, "replayed")


def _list(error: InvalidSubmissionError | None = None) -> str:
    return render_template(
        "webhooks.html",
        webhooks=list_webhooks(context().engine, identity()),
        problems=error.problems if error else [],
        given=request.form if error else {"kinds": KINDS},
        chosen=request.form.getlist("kinds") if error else KINDS,
        kinds=KINDS,
        done=_done(),
    )


def _page(webhook: Webhook, error: InvalidSubmissionError | None = None) -> str:
    before, chosen = integer("before"), state("state", DeliveryState)
    page = list_deliveries(context().engine, webhook.id, DELIVERIES_PER_PAGE, before, chosen)
    return render_template(
        "webhook.html",
        webhook=webhook,
        secret_shown=shows_secret(webhook),
        deliveries=page.entries,
        before=before,
        next=page.entries[-1].delivery.id if page.more else None,
        state=chosen,
        states=list(DeliveryState),
        problems=error.problems if error else [],
        given=request.form if error else {"url": webhook.url, "all_jobs": webhook.all_jobs},
        chosen=request.form.getlist("kinds") if error else webhook.kinds,
        kinds=KINDS,
        done=_done(),
    )


def _done() -> str | None:
    return DONE.get(request.args.get("done", "")) if request.method == "GET" else None


def _refused(page: str) -> Response:
    return Response(page.encode("utf-8", "replace"), HTTPStatus.UNPROCESSABLE_ENTITY, mimetype="text/html")


def _webhook(webhook_id: int) -> Webhook:
    return get_webhook(context().engine, identity(), webhook_id)


def _switch(webhook_id: int, *, enabled: bool) -> None:
    _webhook(webhook_id)
    farm = context()
    webhooks.change_webhook(farm.engine, webhook_id, farm.settings.reachable_hosts, identity().name, enabled=enabled)


def _back(webhook_id: int, done: str) -> Response:
    return redirect(url_for("webhooks.show", webhook_id=webhook_id, done=done), HTTPStatus.SEE_OTHER)
