"""What is somebody's own, on every route that names it: others, whatever they may do with theirs, change none of it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from farm import people
from farm.models import Base, Preset
from farm.roles import Role

#: What others may send about a job of somebody: which of its pictures they want to have.
READING = {"api_archive.download_chosen", "gallery.archive"}
#: Rows that tell who asked, and when.
NOTED = {"activities", "api_tokens", "sessions", "users"}
#: Stars and tags are everybody's.
MARKING = {"api_images.mark", "api_images.mark_many", "gallery.mark"}
NOT_THEIRS = {403, 404}


@pytest.fixture
def as_ana(app: Flask, engine: Engine) -> FlaskClient:
    return _browser(app, engine, "ana", Role.SUBMITTER)


@pytest.fixture
def as_eve(app: Flask, engine: Engine) -> FlaskClient:
    return _browser(app, engine, "eve", Role.SUBMITTER)


def _browser(app: Flask, engine: Engine, name: str, role: Role) -> FlaskClient:
    who = people.find_user(engine, name) or people.add_user(engine, name, role, None)
    browser = app.test_client()
    browser.set_cookie("farm_session", people.open_session(engine, who.user_id))
    return browser


@pytest.fixture
def anas(as_ana: FlaskClient, farm, engine: Engine) -> dict[str, Any]:
    """One of each kind of thing that is hers, by the name that routes give it."""
    webhook = as_ana.post("/api/v1/webhooks", json={"url": "https://anas.example.org/"}).get_json()
    token = as_ana.post("/api/v1/tokens", json={"name": "ana only"}).get_json()
    assert as_ana.post(f"/api/v1/webhooks/{webhook['id']}/test").status_code < 300
    with Session(engine, expire_on_commit=False) as session, session.begin():
        preset = Preset(owner="ana", name="ana only", fields={})
        session.add(preset)
        session.flush()
        preset_id = preset.id
        delivery = session.scalar(text("SELECT id FROM deliveries"))
    ana = people.find_user(engine, "ana")
    assert ana is not None
    return {
        "job_id": farm.complete(2, owner="ana"),
        "index": 0,
        "webhook_id": webhook["id"],
        "delivery_id": delivery,
        "token_id": token["id"],
        "preset_id": preset_id,
        "user_id": ana.user_id,
    }


@pytest.fixture
def contents(engine: Engine) -> Callable[[], dict[str, Any]]:
    """A hash of what each table holds."""

    def read() -> dict[str, Any]:
        with engine.connect() as connection:
            return {
                name: connection.scalar(text(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM \"{name}\" t"))
                for name in Base.metadata.tables
                if name not in NOTED
            }

    return read


def routes_of(app: Flask, things: dict[str, Any], unsafe: bool) -> Iterator[tuple[str, str, str]]:
    """Method, path and endpoint of all routes that name one of these things."""
    for rule in app.url_map.iter_rules():
        names = set(re.findall(r"<(?:\w+:)?(\w+)>", rule.rule))
        if names and names <= things.keys():
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(things[found[1]]), rule.rule)
            methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            for method in sorted(methods - {"GET"} if unsafe else methods & {"GET"}):
                yield method, path, rule.endpoint


def test_nobody_changes_what_is_anothers(
    app: Flask, as_eve: FlaskClient, anas: dict[str, Any], contents: Callable[[], dict[str, Any]]
) -> None:
    before, walked = contents(), set()
    for method, path, endpoint in routes_of(app, anas, unsafe=True):
        walked.add(endpoint)
        if endpoint in MARKING:
            continue
        answer = as_eve.open(path, method=method, json={} if path.startswith("/api/") else None)
        if endpoint not in READING:
            assert answer.status_code in NOT_THEIRS, (method, path, answer.status_code, answer.get_data(as_text=True))
        assert contents() == before, (method, path)
    assert len(walked) >= 30, walked


def test_jobs_of_others_are_left_out_of_what_is_done_to_many(
    as_eve: FlaskClient, farm, anas: dict[str, Any], contents: Callable[[], dict[str, Any]]
) -> None:
    unfinished = farm.submit(2, owner="ana")
    before = contents()
    for action in ("cancel", "pause", "delete", "retry", "resume"):
        body = {"action": action, "jobs": [anas["job_id"], unfinished]}
        outcomes = as_eve.post("/api/v1/jobs/actions", json=body).get_json()["outcomes"]
        assert [one["done"] for one in outcomes] == [False, False], action
    as_eve.post("/jobs/act", data={"action": "cancel", "job": [unfinished]})
    assert contents() == before


def test_nobody_sees_tokens_webhooks_and_presets_of_another(
    as_eve: FlaskClient, app: Flask, anas: dict[str, Any]
) -> None:
    for method, path, endpoint in routes_of(app, anas, unsafe=False):
        if {"webhook_id", "token_id", "preset_id", "user_id"} & {*re.findall(r"(\w+_id)>", _rule(app, endpoint))}:
            assert as_eve.open(path, method=method).status_code in NOT_THEIRS, path
    for path in ("/account", "/webhooks", "/jobs/new", "/api/v1/webhooks", "/api/v1/tokens", "/api/v1/presets"):
        answer = as_eve.get(path)
        assert answer.status_code in {200, 405}, path
        assert "ana only" not in answer.get_data(as_text=True), path
        assert "anas.example" not in answer.get_data(as_text=True), path


def _rule(app: Flask, endpoint: str) -> str:
    return next(rule.rule for rule in app.url_map.iter_rules() if rule.endpoint == endpoint)
