"""Webhooks as their receivers see them: what comes, signed how, and what becomes of it when they do not answer."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from receiver import Received, receiver, status
from rows import pictures_of, start, submit
from running import wait_until
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session
from standardwebhooks import Webhook as Signature
from standardwebhooks import WebhookVerificationError

from farm import people, webhooks
from farm.addresses import AllowedHosts
from farm.catalog import Catalog
from farm.control import cancel_job, delete_job
from farm.database import DELIVERIES_CHANNEL, open_database
from farm.errors import ConflictError, InvalidSubmissionError
from farm.models import Delivery, Webhook
from farm.roles import Role
from farm.settings import Settings
from farm.states import DeliveryState
from farm.transitions import fail_attempt, finish_batch
from farm.webhooks import BACK_OFF_SECONDS, LEASE_SECONDS, claim_due
from producer.intake import Intake, Row
from producer.service import _beside
from producer.submit import submit_job
from producer.webhooks import SHARE, TIMEOUT_SECONDS, send_deliveries

DOCS = Path(__file__).parents[2] / "docs" / "webhooks.md"
LOOPBACK = AllowedHosts.read("127.0.0.0/8")


@pytest.fixture
def owner(engine: Engine) -> str:
    """Whose jobs those of ``rows.submit`` are made to be."""
    return people.add_user(engine, "ana", Role.SUBMITTER).name


@pytest.fixture
def sending(engine: Engine, settings: Settings) -> Callable[..., Any]:
    """Senders as in so many producers, for the time of the context."""

    @contextmanager
    def sending(producers: int = 1) -> Iterator[None]:
        stop = threading.Event()
        threads = [
            threading.Thread(target=send_deliveries, args=(engine, settings.database_url, LOOPBACK, stop))
            for _ in range(producers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    return sending


def deliveries(engine: Engine) -> list[Delivery]:
    with Session(engine, expire_on_commit=False) as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.id)))


def webhook(engine: Engine, webhook_id: int) -> Webhook:
    with Session(engine, expire_on_commit=False) as session:
        return session.get_one(Webhook, webhook_id)


def settled(engine: Engine, *states: DeliveryState) -> list[Delivery]:
    """The deliveries, once they are in these states."""
    return wait_until(
        lambda: [one.state for one in found] == list(states) and found if (found := deliveries(engine)) else None,
        f"{states}",
    )


def reported(delivery: Delivery) -> bool:
    """Whether its latest attempt ended: while it lasts, nobody else tries it for a minute."""
    waits = (delivery.next_attempt_at or datetime.max.replace(tzinfo=UTC)) - (
        delivery.attempted_at or delivery.next_attempt_at
    )
    return delivery.error is not None and waits != timedelta(seconds=LEASE_SECONDS)


def let_time_pass(engine: Engine) -> None:
    """What waits for its next attempt, or for a sender that died, waited long enough."""
    with engine.begin() as connection:
        due = update(Delivery).where(Delivery.state == DeliveryState.PENDING).values(next_attempt_at=func.now())
        connection.execute(due)
        connection.execute(text(f"NOTIFY {DELIVERIES_CHANNEL}"))


def submit_for(engine: Engine, owner: str, images: int = 1) -> int:
    fields = {"seed": 7, "refiner_split": "none", "name": "foxes", "batch_size": 10}
    rows = [Row({"prompt": "a fox"}) for _ in range(images)]
    return submit_job(engine, Catalog.load(), "tiny", fields, Intake(rows), owner).job_id


def checked(request: Received, secret: str) -> dict[str, Any]:
    """The message, if its signature is right."""
    message: dict[str, Any] = Signature(secret).verify(request.body, request.headers)
    return message


def test_a_job_is_told_of_from_its_beginning_to_its_end(engine: Engine, owner: str, sending) -> None:
    with receiver() as server, sending(producers=2):
        hook = webhooks.add_webhook(engine, owner, f"{server.url}/hook?key=1", LOOPBACK)
        submit(engine, 1)  # Nobody's: not told.
        job_id = submit_for(engine, owner, 2)
        held = start(engine, job_id)
        finish_batch(engine, held, "w", pictures_of(held), 1.0)
        requests = server.wait_for(5)
        settled(engine, *[DeliveryState.DELIVERED] * 5)
        # Two senders, and each message once.
        assert len(server.received) == 5
    messages = sorted((checked(request, hook.secret) for request in requests), key=lambda one: one["timestamp"])
    ids = [request.headers["webhook-id"] for request in requests]
    assert len(set(ids)) == 5
    assert all(name.startswith("evt_") for name in ids)
    assert {request.path for request in requests} == {"/hook?key=1"}
    assert [message["type"] for message in messages[:2]] == ["job.submitted", "job.started"]
    by_kind = {(message["type"], message["data"].get("index")): message["data"] for message in messages}
    assert by_kind["image.completed", 1]["file_url"] == f"/api/v1/jobs/{job_id}/images/1/file"
    ended = by_kind["job.completed", None]
    assert ended["job"] == {
        "id": job_id,
        "name": "foxes",
        "owner": owner,
        "pipeline": "tiny",
        "state": "completed",
        "images": {"total": 2, "completed": 2, "failed": 0},
    }
    assert all(len(request.body) < 1_000 for request in requests)
    forged = requests[0].body.replace(b"foxes", b"boxes")
    with pytest.raises(WebhookVerificationError):
        Signature(hook.secret).verify(forged, requests[0].headers)


def test_webhooks_hear_what_they_asked_for_and_may_hear(engine: Engine, owner: str) -> None:
    people.add_user(engine, "operator", Role.OPERATOR)
    make = {"url": "https://hooks.example/", "allowed": LOOPBACK}
    ends = webhooks.add_webhook(engine, owner, kinds=["job.cancelled", "job.deleted"], **make)
    everything = webhooks.add_webhook(engine, "operator", all_jobs=True, **make)
    claimed = webhooks.add_webhook(engine, owner, all_jobs=True, kinds=["job.cancelled"], **make)
    silent = webhooks.add_webhook(engine, owner, **make)
    webhooks.change_webhook(engine, silent.id, LOOPBACK, owner, enabled=False)
    others, own = submit(engine, 1), submit_for(engine, owner)
    for job_id in (others, own):
        cancel_job(engine, job_id)
        delete_job(engine, job_id)
    due = claim_due(engine, 100, 100, {})
    heard = {
        hook: [(one.event.kind, one.event.job_id) for one in due if one.webhook_id == hook.id]
        for hook in (ends, everything, claimed, silent)
    }
    assert heard[ends] == [("job.cancelled", own), ("job.deleted", own)]
    assert len(heard[everything]) == 6
    # Who is no operator, or no longer one, hears of their own jobs alone.
    assert heard[claimed] == [("job.cancelled", own)]
    assert heard[silent] == []
    people.change_user(engine, people.find_user(engine, owner).user_id, disabled=True)  # type: ignore[union-attr]
    cancel_job(engine, submit_for(engine, owner))
    assert {one.webhook_id for one in claim_due(engine, 100, 100, {})} == {everything.id}


def test_what_is_refused_comes_again_later_and_later_and_fails_in_the_end(
    engine: Engine, owner: str, sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first pause is to be looked at before it is over.
    pauses = (45, *BACK_OFF_SECONDS[1:])
    monkeypatch.setattr(webhooks, "BACK_OFF_SECONDS", pauses)
    with receiver(status(503)) as server, sending():
        hook = webhooks.add_webhook(engine, owner, server.url, LOOPBACK, ["job.submitted"])
        submit_for(engine, owner)
        for attempt, pause in enumerate(pauses, start=1):
            server.wait_for(attempt)
            (delivery,) = wait_until(
                lambda attempt=attempt: [
                    one for one in deliveries(engine) if one.attempts == attempt and reported(one)
                ],
                "the report",
            )
            assert (delivery.state, delivery.status, delivery.error) == (DeliveryState.PENDING, 503, "answered 503")
            assert delivery.next_attempt_at is not None
            assert delivery.attempted_at is not None
            waits = (delivery.next_attempt_at - delivery.attempted_at).total_seconds()
            # Up to a fifth less or more, and the time that the attempt took.
            assert 0.8 * pause <= waits < 1.2 * pause + 60
            let_time_pass(engine)
        (failed,) = settled(engine, DeliveryState.FAILED)
        assert failed.attempts == len(pauses) + 1
        requests = server.wait_for(failed.attempts)
        assert len({request.headers["webhook-id"] for request in requests}) == 1

        # Replayed, it is the same message with a signature of now, and its pauses begin anew.
        server.answer = status(204)
        since = datetime.now(UTC) - timedelta(hours=1)
        assert webhooks.replay_failed(engine, hook.id, since + timedelta(hours=2)) == 0
        assert webhooks.replay_failed(engine, hook.id, since) == 1
        (delivered,) = settled(engine, DeliveryState.DELIVERED)
        assert (delivered.status, delivered.error) == (204, None)
        webhooks.replay(engine, hook.id, delivered.id)
        again = server.wait_for(failed.attempts + 2)[-1]
        settled(engine, DeliveryState.DELIVERED)
    assert again.headers["webhook-id"] == requests[0].headers["webhook-id"]
    assert checked(again, hook.secret)["type"] == "job.submitted"
    assert webhook(engine, hook.id).failing_since is None


def test_a_sender_that_dies_loses_nothing_and_its_late_report_counts_for_nothing(
    engine: Engine, owner: str, sending
) -> None:
    with receiver() as server:
        webhooks.add_webhook(engine, owner, server.url, LOOPBACK, ["job.submitted"])
        submit_for(engine, owner)
        (died,) = claim_due(engine, 10, 10, {})
        assert claim_due(engine, 10, 10, {}) == []
        let_time_pass(engine)
        with sending():
            settled(engine, DeliveryState.DELIVERED)
    assert not webhooks.note_in_vain(engine, died, None, "was lost")
    assert [one.state for one in deliveries(engine)] == [DeliveryState.DELIVERED]


def test_an_outage_of_the_database_is_outlived(
    engine: Engine, owner: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.service.BESIDE_SECONDS", 0.1)
    own, stop = open_database(settings), threading.Event()
    with receiver() as server:
        hook = webhooks.add_webhook(engine, owner, server.url, LOOPBACK)
        thread = _beside(stop, "webhooks", lambda: send_deliveries(own, settings.database_url or "", LOOPBACK, stop))
        for count in (1, 2):
            webhooks.send_test(engine, hook.id)
            server.wait_for(count)
            settled(engine, *[DeliveryState.DELIVERED] * count)
            with engine.begin() as connection:
                others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        webhooks.send_test(engine, hook.id)
        server.wait_for(3)
        stop.set()
        thread.join()
        own.dispose()


def test_a_receiver_that_hangs_holds_up_no_other(engine: Engine, owner: str, sending) -> None:
    over = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        over.wait(60)

    began = time.monotonic()
    with receiver(hang) as slow, receiver() as quick, sending():
        for server in (slow, quick):
            webhooks.add_webhook(engine, owner, server.url, LOOPBACK, ["image.completed"])
        job_id = submit_for(engine, owner, 150)
        for _ in range(15):
            held = start(engine, job_id)
            finish_batch(engine, held, "w", pictures_of(held), 1.0)
        quick.wait_for(150, 200)
        # So many at once, and one more for each that was waited for in vain.
        assert len(slow.received) <= SHARE * (1 + (time.monotonic() - began) / TIMEOUT_SECONDS)
        over.set()


def test_who_is_gone_is_told_nothing_more(engine: Engine, owner: str, sending) -> None:
    with receiver(status(410)) as server, sending():
        hook = webhooks.add_webhook(engine, owner, server.url, LOOPBACK, ["job.submitted"])
        submit_for(engine, owner)
        wait_until(lambda: webhook(engine, hook.id).disabled_at, "the end")
    submit_for(engine, owner)
    assert [(one.state, one.status) for one in deliveries(engine)] == [(DeliveryState.FAILED, 410)]
    assert "gone" in (webhook(engine, hook.id).disabled_because or "")
    with pytest.raises(ConflictError, match="Enable it first"):
        webhooks.replay(engine, hook.id, deliveries(engine)[0].id)
    webhooks.change_webhook(engine, hook.id, LOOPBACK, owner, enabled=True)
    webhooks.replay(engine, hook.id, deliveries(engine)[0].id)
    assert webhook(engine, hook.id).disabled_because is None


def test_after_days_in_vain_a_webhook_is_disabled_and_says_why(engine: Engine, owner: str, sending) -> None:
    with receiver(status(500)) as server:
        hook = webhooks.add_webhook(engine, owner, server.url, LOOPBACK, ["job.submitted"])
        submit_for(engine, owner)
        (first,) = claim_due(engine, 1, 1, {})
        webhooks.note_in_vain(engine, first, 500, "answered 500")
        assert webhook(engine, hook.id).disabled_at is None
        with engine.begin() as connection:
            connection.execute(update(Webhook).values(failing_since=func.now() - timedelta(days=3, minutes=1)))
        submit_for(engine, owner)
        with sending():
            settled(engine, DeliveryState.FAILED, DeliveryState.FAILED)
    assert "Nothing got through since" in (webhook(engine, hook.id).disabled_because or "")
    assert "answered 500" in (webhook(engine, hook.id).disabled_because or "")


def test_a_new_secret_and_the_one_before_sign_for_a_day(engine: Engine, owner: str, sending) -> None:
    with receiver() as server, sending():
        hook = webhooks.add_webhook(engine, owner, server.url, LOOPBACK)
        new = webhooks.rotate_secret(engine, hook.id, owner)
        assert webhooks.send_test(engine, hook.id)
        (both,) = server.wait_for(1)
        assert checked(both, hook.secret) == checked(both, new)
        assert checked(both, new)["type"] == "webhook.test"
        with engine.begin() as connection:
            connection.execute(update(Webhook).values(old_secret_until=func.now()))
        webhooks.send_test(engine, hook.id)
        _, later = server.wait_for(2)
    assert checked(later, new)["data"] == {}
    with pytest.raises(WebhookVerificationError):
        checked(later, hook.secret)


def test_the_inside_is_told_nothing(engine: Engine, owner: str, settings: Settings) -> None:
    """Also when a webhook was made while its host was allowed, or its name leads elsewhere by now."""
    stop = threading.Event()
    with receiver() as server:
        webhooks.add_webhook(engine, owner, server.url, LOOPBACK, ["job.submitted"])
        named = server.url.replace("http://127.0.0.1", "https://localhost")
        webhooks.add_webhook(engine, owner, named, LOOPBACK, ["job.submitted"])
        submit_for(engine, owner)
        thread = threading.Thread(target=send_deliveries, args=(engine, settings.database_url, AllowedHosts(), stop))
        thread.start()
        found = wait_until(lambda: [one.error for one in deliveries(engine) if one.error][1:], "reports")
        stop.set()
        thread.join()
    assert found
    assert all("FARM_ALLOWED_HOSTS" in (one.error or "") for one in deliveries(engine))
    assert server.received == []


@pytest.mark.parametrize(
    ("url", "kinds", "reason"),
    [
        ("http://hooks.example/", None, "url: is not encrypted"),
        ("https://10.0.0.1/", None, "url: leads to 10.0.0.1"),
        ("https://hooks.example/", ["job.eaten"], "kinds: hold 'job.eaten'; choose from job.submitted"),
        ("https://hooks.example/", ["webhook.test"], "kinds: hold"),
        ("https://hooks.example/", [], "kinds: are none"),
    ],
)
def test_webhooks_that_cannot_be_are_refused(
    engine: Engine, owner: str, url: str, kinds: list[str], reason: str
) -> None:
    with pytest.raises(InvalidSubmissionError, match=reason):
        webhooks.add_webhook(engine, owner, url, AllowedHosts(), kinds)


def test_errors_of_images_are_told_in_short(engine: Engine, owner: str, sending) -> None:
    with receiver() as server, sending():
        webhooks.add_webhook(engine, owner, server.url, LOOPBACK, ["image.failed"])
        held = start(engine, submit_for(engine, owner))
        fail_attempt(engine, held.batch_id, held.attempt, "no memory " * 1_000, max_failures=1)
        (told,) = server.wait_for(1)
    assert json.loads(told.body)["data"]["details"]["error"].startswith("no memory")
    assert len(told.body) < 2_000


def test_the_examples_check_signatures(
    engine: Engine, owner: str, sending, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    receiving, checking = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    with receiver() as server, sending():
        hook = webhooks.add_webhook(engine, owner, server.url, LOOPBACK)
        monkeypatch.setenv("WEBHOOK_SECRET", hook.secret)
        example: dict[str, Any] = {"__name__": "example"}
        exec(receiving, example)
        own = HTTPServer(("127.0.0.1", 0), example["Receiver"])
        monkeypatch.setattr(example["Receiver"], "log_message", lambda *_: None)
        thread = threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        webhooks.change_webhook(engine, hook.id, LOOPBACK, owner, url=f"http://127.0.0.1:{own.server_port}/")
        for _ in range(2):
            webhooks.replay(engine, hook.id, webhooks.send_test(engine, hook.id))
        settled(engine, DeliveryState.DELIVERED, DeliveryState.DELIVERED)
        forged = httpx.post(f"http://127.0.0.1:{own.server_port}/", headers={"webhook-id": "evt_1"}, content="{}")
        own.shutdown()
        thread.join()
        own.server_close()
        assert forged.status_code == 401
        assert set(capsys.readouterr().out.splitlines()) == {"webhook.test {}"}

        exec(checking, example)
        webhooks.change_webhook(engine, hook.id, LOOPBACK, owner, url=server.url)
        new = webhooks.rotate_secret(engine, hook.id, owner)
        webhooks.send_test(engine, hook.id)
        (told,) = server.wait_for(1)
    assert example["is_genuine"](hook.secret, told.headers, told.body)
    assert example["is_genuine"](new, told.headers, told.body)
    assert not example["is_genuine"](new, told.headers, told.body + b" ")
    assert not example["is_genuine"](new, told.headers | {"webhook-timestamp": "1700000000"}, told.body)
