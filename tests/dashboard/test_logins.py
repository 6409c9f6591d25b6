"""The way in: passwords, links, and how guessing is slowed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from logins import PASSWORD, log_in
from sqlalchemy import Engine

from dashboard.throttle import MAX_FAILURES, WINDOW_SECONDS
from farm import people
from farm.roles import Role
from farm.settings import Settings


@pytest.fixture
def ana(engine: Engine) -> people.Identity:
    return people.add_user(engine, "ana", Role.SUBMITTER, PASSWORD)


def test_logging_in_and_out(stranger: FlaskClient, ana: people.Identity) -> None:
    wanted = stranger.get("/jobs/new?a=1")
    assert wanted.status_code == 303
    form = stranger.get(wanted.location).get_data(as_text=True)
    assert 'name="next" value="/jobs/new?a=1"' in form
    wrong = log_in(stranger, "ana", "wrong", next="/jobs/new?a=1")
    assert wrong.status_code == 403
    assert "do not match" in wrong.get_data(as_text=True)
    assert 'value="/jobs/new?a=1"' in wrong.get_data(as_text=True)
    assert "farm_session" not in wrong.headers.get("Set-Cookie", "")
    right = log_in(stranger, " ana ", PASSWORD, next="/jobs/new?a=1")
    assert (right.status_code, right.location) == (303, "/jobs/new?a=1")
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    assert stranger.get("/api/v1/me").get_json()["name"] == "ana"
    assert stranger.post("/logout").status_code == 303
    assert stranger.get("/api/v1/me").status_code == 401
    # The cookie of a session that was closed is worth nothing, also to whoever kept it.
    stranger.set_cookie("farm_session", cookie.partition("=")[2].partition(";")[0])
    assert stranger.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize(
    "goal",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example/",
        "/\\evil.example/",
        "\\\\evil.example/",
        "/\t/evil.example/",
        " //evil.example/",
        "javascript:alert(1)",
        "http:evil.example",
        "evil.example",
    ],
)
def test_nobody_is_led_elsewhere(stranger: FlaskClient, ana: people.Identity, goal: str) -> None:
    assert log_in(stranger, "ana", PASSWORD, next=goal).location == "/"
    page = stranger.get("/login", query_string={"next": goal}).get_data(as_text=True)
    assert 'name="next" value="/"' in page


def test_a_link_logs_in_once(app: Flask, engine: Engine, ana: people.Identity) -> None:
    link = f"/enter/{people.make_link(engine, ana.user_id)}"
    first, second = app.test_client(), app.test_client()
    assert first.get(link).status_code == 303
    assert first.get("/api/v1/me").get_json()["name"] == "ana"
    refused = second.get(link)
    assert refused.status_code == 403
    assert "used before" in refused.get_data(as_text=True)
    assert second.get("/api/v1/me").status_code == 401


def test_guessing_is_slowed(stranger: FlaskClient, ana: people.Identity, engine: Engine) -> None:
    ben = people.add_user(engine, "ben", Role.VIEWER, PASSWORD)
    assert ben
    for _ in range(MAX_FAILURES):
        assert log_in(stranger, "ana", "a guess").status_code == 403
    refused = log_in(stranger, "ana", PASSWORD)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= WINDOW_SECONDS
    assert "Try again in 5 min" in refused.get_data(as_text=True)
    # Neither another name from there, nor this name from elsewhere ...
    assert log_in(stranger, "ben", PASSWORD).status_code == 429
    assert log_in(stranger, "ana", PASSWORD, address="10.1.1.1").status_code == 429
    # ... but everybody else comes in, and ana by a link.
    assert log_in(stranger, "ben", PASSWORD, address="10.1.1.1").status_code == 303
    assert stranger.get(f"/enter/{people.make_link(engine, ana.user_id)}").status_code == 303


def test_the_wait_ends(stranger: FlaskClient, ana: people.Identity, settings: Settings) -> None:
    for _ in range(MAX_FAILURES + 3):
        log_in(stranger, "ana", "a guess")
    assert log_in(stranger, "ana", PASSWORD).status_code == 429
    with redis.Redis.from_url(settings.broker_url or "") as broker:
        keys = broker.keys("farm:refused:*")
        assert len(keys) == 2
        assert all(0 < broker.ttl(key) <= WINDOW_SECONDS for key in keys)
        for key in keys:
            broker.expire(key, 0)
    assert log_in(stranger, "ana", PASSWORD).status_code == 303


def test_those_who_know_their_password_never_wait(stranger: FlaskClient, ana: people.Identity) -> None:
    for _ in range(MAX_FAILURES + 2):
        assert log_in(stranger, "ana", PASSWORD).status_code == 303


def test_an_account_of_ones_own_buys_no_guesses(stranger: FlaskClient, engine: Engine, ana: people.Identity) -> None:
    people.add_user(engine, "mallory", Role.VIEWER, PASSWORD)
    answers = []
    for number in range(MAX_FAILURES + 1):
        answers.append(log_in(stranger, f"victim {number}", "a guess").status_code)
        log_in(stranger, "mallory", PASSWORD)
    assert answers == [403] * MAX_FAILURES + [429]


def test_many_guesses_at_once_are_no_more_guesses(app: Flask, ana: people.Identity) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: log_in(app.test_client(), "ana", "a guess").status_code, range(40)))
    assert (codes.count(403), codes.count(429)) == (MAX_FAILURES, 40 - MAX_FAILURES)


def test_one_network_of_ipv6_is_one_address(stranger: FlaskClient, ana: people.Identity) -> None:
    for number in range(MAX_FAILURES):
        log_in(stranger, f"name {number}", "a guess", address=f"2001:db8:1:1::{number}")
    assert log_in(stranger, "ana", PASSWORD, address="2001:db8:1:1:ffff::1").status_code == 429
    assert log_in(stranger, "ana", PASSWORD, address="2001:db8:1:2::1").status_code == 303


def test_without_a_broker_people_still_come_in(make_app, settings: Settings, ana: people.Identity) -> None:
    browser = make_app(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})).test_client()
    assert log_in(browser, "ana", "a guess").status_code == 403
    assert log_in(browser, "ana", PASSWORD).status_code == 303


@pytest.mark.parametrize(("proxies", "counted"), [(0, "127.0.0.1"), (1, "10.9.9.9")])
def test_a_proxy_is_believed_where_there_is_one(make_app, let_in, settings: Settings, proxies, counted, ana) -> None:
    app = make_app(settings.model_copy(update={"trusted_proxies": proxies}))
    headers = {"X-Forwarded-For": "6.6.6.6, 10.9.9.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "farm.example"}
    browser = app.test_client()
    browser.post("/login", data={"name": "ana", "password": "a guess"}, headers=headers)
    right = browser.post("/login", data={"name": "ana", "password": PASSWORD}, headers=headers)
    assert ("Secure" in right.headers["Set-Cookie"]) == bool(proxies)
    client = let_in(app)
    log = client.get("/api/v1/activities?action=user.refused").get_json()["activities"]
    assert [entry["details"] for entry in log] == [{"address": counted}]
    link = client.post("/api/v1/login-links", headers=headers).get_json()["url"]
    assert link.startswith("https://farm.example/enter/" if proxies else "http://localhost/enter/")
    # What the page itself sends is not foreign behind a proxy.
    own = {**headers, "Origin": "https://farm.example"}
    assert client.post("/api/v1/login-links", headers=own).status_code == (201 if proxies else 403)


def test_a_wrong_log_in_is_noted_without_what_was_typed(stranger: FlaskClient, client: FlaskClient, ana) -> None:
    log_in(stranger, "ana", "a guess")
    log_in(stranger, "my secret password", "ana")
    log_in(stranger, "nul \0", "nul \0")
    log = client.get("/api/v1/activities").get_data(as_text=True)
    assert log.count("user.refused") == 3
    assert "secret" not in log
    assert "ana" in log
    assert "failed to log in, from 127.0.0.1" in client.get("/activity").get_data(as_text=True)
