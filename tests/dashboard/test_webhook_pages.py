"""Webhooks over HTTP and on their pages: whose they are, what they show, what can be done again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from farm import people
from farm.limits import Limits
from farm.roles import Role
from farm.webhooks import claim_due, note_delivered, note_in_vain

URL = "https://hooks.example/farm"


@pytest.fixture
def program(app: Flask, engine: Engine) -> Callable[..., FlaskClient]:
    """Programs with a token of a user of this role."""

    def program(role: Role, name: str | None = None, scopes: list[str] | None = None) -> FlaskClient:
        name = name or f"a {role}"
        who = people.find_user(engine, name) or people.add_user(engine, name, role)
        client = app.test_client()
        token = people.make_token(engine, who.user_id, "tests", scopes=scopes, limits=Limits())
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    return program


def make(client: FlaskClient, **fields: Any) -> dict[str, Any]:
    made = client.post("/api/v1/webhooks", json={"url": URL, **fields})
    assert made.status_code == 201, made.text
    assert made.location == f"/api/v1/webhooks/{made.get_json()['id']}"
    found: dict[str, Any] = made.get_json()
    return found


def test_webhooks_are_made_changed_and_removed(program) -> None:
    ana = program(Role.SUBMITTER)
    hook = make(ana, kinds=["job.completed"])
    path = f"/api/v1/webhooks/{hook['id']}"
    assert hook["secret"].startswith("whsec_")
    assert (hook["enabled"], hook["kinds"], hook["all_jobs"]) == (True, ["job.completed"], False)
    assert len(make(ana)["kinds"]) == 12
    changed = ana.patch(path, json={"enabled": False, "url": URL + "/2"}).get_json()
    assert (changed["enabled"], changed["url"], changed["kinds"]) == (False, URL + "/2", ["job.completed"])
    assert ana.post(f"{path}/test").status_code == 409
    assert ana.patch(path, json={"enabled": True}).get_json()["enabled"]
    rotated = ana.post(f"{path}/secret").get_json()["secret"]
    assert rotated != hook["secret"]
    assert ana.get(path).get_json()["secret"] == rotated
    assert ana.delete(path).status_code == 204
    assert ana.get(path).status_code == 404
    assert len(ana.get("/api/v1/webhooks").get_json()["webhooks"]) == 1
    actions = [one["action"] for one in ana.get("/api/v1/activities").get_json()["activities"]]
    assert {"webhook.add", "webhook.change", "webhook.rotate", "webhook.delete"} <= set(actions)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": 5}, "url"),
        ({"url": "http://hooks.example/"}, "url"),
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": URL, "kinds": "job.completed"}, "kinds"),
        ({"url": URL, "kinds": ["nothing"]}, "kinds"),
        ({"url": URL, "all_jobs": "yes"}, "all_jobs"),
        ({"url": URL, "colour": "red"}, "colour"),
    ],
)
def test_webhooks_that_cannot_be_are_refused(client: FlaskClient, body: dict, field: str) -> None:
    refused = client.post("/api/v1/webhooks", json=body)
    assert refused.status_code == 422
    assert refused.get_json()["errors"][0]["field"] == field


def test_webhooks_are_their_owners_and_secrets_theirs_alone(program) -> None:
    ana, ben, admin = program(Role.SUBMITTER, "ana"), program(Role.SUBMITTER, "ben"), program(Role.ADMIN)
    hook = make(ana)
    path = f"/api/v1/webhooks/{hook['id']}"
    for way in ("", "/deliveries"):
        assert ben.get(path + way).status_code == 404
    for way in ("/secret", "/test", "/replay", "/deliveries/1/replay"):
        assert ben.post(path + way, json={"since": "2026-01-01"}).status_code == 404
    assert ben.delete(path).status_code == ben.patch(path, json={}).status_code == 404
    assert ben.get(f"/webhooks/{hook['id']}").status_code == 404
    assert [one["secret"] for one in admin.get("/api/v1/webhooks").get_json()["webhooks"]] == [None]
    assert hook["secret"] not in admin.get(f"/webhooks/{hook['id']}").text
    assert hook["secret"] in ana.get(f"/webhooks/{hook['id']}").text
    assert program(Role.SUBMITTER, "ana", ["read"]).get(path).get_json()["secret"] is None
    assert program(Role.VIEWER).post("/api/v1/webhooks", json={"url": URL}).status_code == 403


def test_all_jobs_are_for_operators(program) -> None:
    assert program(Role.SUBMITTER).post("/api/v1/webhooks", json={"url": URL, "all_jobs": True}).status_code == 403
    assert make(program(Role.OPERATOR), all_jobs=True)["all_jobs"]
    narrow = program(Role.OPERATOR, scopes=["read", "submit"])
    assert narrow.post("/api/v1/webhooks", json={"url": URL, "all_jobs": True}).status_code == 403
    own = make(narrow)
    assert narrow.patch(f"/api/v1/webhooks/{own['id']}", json={"all_jobs": True}).status_code == 403


def test_deliveries_are_listed_and_sent_again(client: FlaskClient, engine: Engine, farm) -> None:
    hook = make(client, all_jobs=True, kinds=["image.completed", "job.completed"])
    path = f"/api/v1/webhooks/{hook['id']}"
    job_id = farm.complete(3)
    first, *_ = claim_due(engine, 10, 10, {})
    assert note_delivered(engine, first, 204)
    pages, before = [], ""
    while before is not None:
        page = client.get(f"{path}/deliveries?limit=3{before and f'&before={before}'}").get_json()
        pages.append(page["deliveries"])
        before = page["next"]
    assert [len(page) for page in pages] == [3, 1]
    listed = [one for page in pages for one in page]
    assert [one["id"] for one in listed] == sorted((one["id"] for one in listed), reverse=True)
    (delivered,) = client.get(f"{path}/deliveries?state=delivered").get_json()["deliveries"]
    assert (delivered["status"], delivered["error"], delivered["attempts"]) == (204, None, 1)
    assert (delivered["kind"], delivered["job_id"], delivered["index"]) == ("image.completed", job_id, 0)
    assert delivered["message_id"] == f"evt_{first.event.id}"
    assert client.get(f"{path}/deliveries?state=lost").status_code == 422
    replayed = client.post(f"{path}/deliveries/{delivered['id']}/replay")
    assert (replayed.status_code, replayed.get_json()["state"]) == (202, "pending")
    assert client.post(f"{path}/deliveries/999/replay").status_code == 404


def test_what_failed_since_a_time_is_sent_again(client: FlaskClient, engine: Engine, farm) -> None:
    hook = make(client, all_jobs=True, kinds=["job.completed"])
    path = f"/api/v1/webhooks/{hook['id']}"
    farm.complete()
    client.patch(path, json={"enabled": False})
    client.patch(path, json={"enabled": True})
    (failed,) = client.get(f"{path}/deliveries?state=failed").get_json()["deliveries"]
    assert "disabled" in failed["error"]
    for since in (None, "yesterday", 5):
        assert client.post(f"{path}/replay", json={"since": since}).status_code == 422
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert client.post(f"{path}/replay", json={"since": later}).get_json() == {"replayed": 0}
    assert client.post(f"{path}/replay", json={"since": failed["at"]}).get_json() == {"replayed": 1}
    assert client.get(f"{path}/deliveries?state=pending").get_json()["deliveries"][0]["id"] == failed["id"]


def test_the_pages_do_what_the_api_does(client: FlaskClient, engine: Engine, farm) -> None:
    assert "Make a webhook" in client.get("/webhooks").text
    refused = client.post("/webhooks", data={"url": "http://hooks.example", "kinds": "job.completed"})
    assert refused.status_code == 422
    assert "is not encrypted" in refused.text
    assert 'value="http://hooks.example"' in refused.text
    made = client.post("/webhooks", data={"url": URL, "kinds": ["job.completed", "job.failed"], "all_jobs": "on"})
    page = made.location.partition("?")[0]
    assert "Nothing yet" in client.get(made.location).text
    assert URL in client.get("/webhooks").text
    job_id = farm.complete()
    (due,) = claim_due(engine, 10, 10, {})
    note_in_vain(engine, due, 500, "answered 500")
    text = client.get(page).text
    assert "answered 500" in text
    assert f'href="/jobs/{job_id}"' in text
    assert "It is tried again and again" in text
    assert "There is none of this kind" in client.get(f"{page}?state=delivered").text
    note_in_vain(engine, due._replace(attempt=due.attempt), 410, "answered 410")
    assert "is gone (410)" in client.get(page).text
    assert client.post(f"{page}/test").status_code == 409
    client.post(f"{page}/enable")
    assert client.post(f"{page}/replay", follow_redirects=True).status_code == 200
    assert [one.delivery_id for one in claim_due(engine, 10, 10, {})] == [due.delivery_id]
    client.post(f"{page}/deliveries/{due.delivery_id}/replay")
    client.post(f"{page}/test")
    assert [one.event.kind for one in claim_due(engine, 10, 10, {})] == ["job.completed", "webhook.test"]
    before = client.get(f"/api/v1{page}").get_json()
    client.post(f"{page}/secret")
    client.post(page, data={"url": URL + "/2", "kinds": "job.failed"})
    after = client.get(f"/api/v1{page}").get_json()
    assert after["secret"] != before["secret"]
    assert (after["url"], after["kinds"], after["all_jobs"]) == (URL + "/2", ["job.failed"], False)
    assert "are none" in client.post(page, data={"url": URL}).text
    client.post(f"{page}/disable")
    assert "Nothing is sent to it." in client.get(page).text
    assert "is removed" in client.post(f"{page}/delete", follow_redirects=True).text
    assert client.get(page).status_code == 404
