"""Who may do what, on every route of the application; tokens; the users' pages."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from logins import PASSWORD, log_in
from sqlalchemy import Engine

from dashboard.throttle import MAX_FAILURES
from farm import people
from farm.roles import Role

#: Answered to everybody.
PUBLIC = {
    "login.form",
    "login.submit",
    "login.enter",
    "login.leave",
    "health.healthz",
    "health.readyz",
    "api_reference.openapi",
    "reference.index",
    "signed.picture",
    "static",
}
#: What viewers may send: changes of what is their own, and long choices of what they want to have.
OWN = {
    "account.create_token",
    "account.delete_token",
    "account.password",
    "account.close_sessions",
    "api_people.create_token",
    "api_people.delete_token",
    "api_people.create_link",
    "api_archive.download_chosen",
    "gallery.archive",
    "pictures.archive",
}
SAFE = {"GET", "HEAD", "OPTIONS"}


@pytest.fixture
def login(app: Flask, engine: Engine) -> Callable[..., FlaskClient]:
    """Makes browsers in which a user of the role is logged in."""

    def login(role: Role, name: str | None = None, password: str | None = None) -> FlaskClient:
        name = name or f"a {role}"
        who = people.find_user(engine, name) or people.add_user(engine, name, role, password)
        browser = app.test_client()
        browser.set_cookie("farm_session", people.open_session(engine, who.user_id))
        return browser

    return login


def routes(app: Flask, job_id: int) -> Iterator[tuple[str, str, str]]:
    """Every method, path and endpoint, with paths that lead to something."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?job_id>", str(job_id), rule.rule)
        path = re.sub(r"<int:\w+>", "0", path)
        path = re.sub(r"<[^>]+>", "something", path)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, path, rule.endpoint


def test_strangers_are_let_in_nowhere_but_where_they_must(app: Flask, farm, stranger: FlaskClient, row_counts) -> None:
    job_id = farm.complete()
    before, let_in = row_counts(), set()
    for method, path, endpoint in routes(app, job_id):
        with stranger.open(path, method=method) as answer:
            if answer.status_code == 401:
                assert "Log in" in answer.get_data(as_text=True)
            elif answer.status_code == 303 and "/login" in answer.location and endpoint not in PUBLIC:
                assert method == "GET"
                assert not path.startswith("/api/")
            else:
                let_in.add(endpoint)
    assert let_in == PUBLIC
    after = row_counts()
    # A log-in that failed was noted, and nothing else.
    assert {name: count - before[name] for name, count in after.items() if count != before[name]} == {"activities": 1}


def test_viewers_change_nothing_but_what_is_their_own(app: Flask, farm, login, row_counts) -> None:
    job_id = farm.complete()
    viewer, before, allowed = login(Role.VIEWER), None, set()
    for method, path, endpoint in routes(app, job_id):
        before = before or row_counts()
        if method in SAFE or endpoint in PUBLIC:
            continue
        answer = viewer.open(path, method=method)
        if answer.status_code == 403:
            assert "role" in answer.get_data(as_text=True)
        else:
            allowed.add(endpoint)
            before = None
        assert endpoint in allowed or row_counts() == before, endpoint
    assert allowed == OWN


def test_viewers_see_everything_but_the_users(app: Flask, farm, login) -> None:
    job_id = farm.complete()
    viewer, refused = login(Role.VIEWER), set()
    for method, path, endpoint in routes(app, job_id):
        if method == "GET" and endpoint not in PUBLIC:
            with viewer.get(path) as answer:
                assert answer.status_code != 401, path
                if answer.status_code == 403:
                    refused.add(endpoint)
    # The form for a new job is of no use to them; the rest is administrators'.
    assert {"people.index", "api_people.users"} <= refused
    assert not {name for name in refused if name.startswith("api_jobs")}


def test_operators_make_no_users(app: Flask, login) -> None:
    operator = login(Role.OPERATOR)
    assert operator.get("/people").status_code == 403
    assert operator.post("/people", data={"name": "mine", "role": "admin"}).status_code == 403
    assert operator.post("/api/v1/users", json={"name": "mine", "role": "admin"}).status_code == 403
    assert operator.post("/api/v1/login-links", json={"user": "somebody"}).status_code == 403


STEERING: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/jobs/{}/name", {"data": {"name": "mine"}}),
    ("POST", "/api/v1/jobs/{}/pause", {}),
    ("POST", "/api/v1/jobs/{}/resume", {}),
    ("POST", "/api/v1/jobs/{}/retry", {}),
    ("PATCH", "/api/v1/jobs/{}", {"json": {"priority": 90}}),
    ("POST", "/api/v1/jobs/{}/cancel", {}),
]


@pytest.mark.parametrize(("method", "path", "arguments"), STEERING)
def test_jobs_are_steered_by_their_owners_and_operators(login, method: str, path: str, arguments: dict) -> None:
    ana, ben = login(Role.SUBMITTER, "ana"), login(Role.SUBMITTER, "ben")
    job_ids = [ana.post("/api/v1/jobs", json={"prompts": ["a fox"]}).get_json()["id"] for _ in range(2)]
    refused = ben.open(path.format(job_ids[0]), method=method, **arguments)
    assert refused.status_code == 403
    assert "ana" in refused.get_data(as_text=True)
    job = ana.get(f"/api/v1/jobs/{job_ids[0]}").get_json()
    assert (job["state"], job["paused"], job["priority"]) == ("queued", False, 50)
    assert ana.open(path.format(job_ids[0]), method=method, **arguments).status_code < 400
    assert login(Role.OPERATOR).open(path.format(job_ids[1]), method=method, **arguments).status_code < 400


def test_only_those_who_may_submit_are_shown_how(login) -> None:
    assert "New job" in login(Role.SUBMITTER).get("/").get_data(as_text=True)
    assert "New job" not in login(Role.VIEWER).get("/workers").get_data(as_text=True)


# --- One's own account


def shown_token(page: str) -> str:
    found = re.search(r'value="(farm_[\w-]+)"', page)
    assert found is not None
    return found[1]


def test_a_token_is_shown_once_and_works_until_it_is_revoked(app: Flask, login) -> None:
    browser = login(Role.VIEWER)
    made = browser.post("/account/tokens", data={"token": "nightly <script>"})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    token = shown_token(made.get_data(as_text=True))
    program = app.test_client()
    program.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    assert program.get("/api/v1/me").get_json()["role"] == "viewer"
    assert program.post("/api/v1/jobs", json={"prompts": ["a fox"]}).status_code == 403
    page = browser.get("/account").get_data(as_text=True)
    assert token not in page
    assert "nightly &lt;script&gt;" in page
    assert "last used" in page
    listed = browser.get("/api/v1/tokens")
    assert token not in listed.get_data(as_text=True)
    (entry,) = listed.get_json()["tokens"]
    assert token.startswith(entry["hint"])
    assert login(Role.ADMIN).delete(f"/api/v1/tokens/{entry['id']}").status_code == 404
    revoked = browser.post(f"/account/tokens/{entry['id']}/revoke", follow_redirects=True)
    assert "is revoked" in revoked.get_data(as_text=True)
    assert program.get("/api/v1/me").status_code == 401
    assert browser.delete(f"/api/v1/tokens/{entry['id']}").status_code == 404


def test_tokens_over_the_api(app: Flask, client: FlaskClient) -> None:
    made = client.post("/api/v1/tokens", json={"name": "ci"})
    assert made.status_code == 201
    program = app.test_client()
    program.environ_base["HTTP_AUTHORIZATION"] = f"bearer  {made.get_json()['token']}"
    assert program.get("/api/v1/jobs").status_code == 200
    assert client.delete(f"/api/v1/tokens/{made.get_json()['id']}").status_code == 204
    assert program.get("/api/v1/jobs").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "name"), ({"name": " "}, "name"), ({"name": 5}, "name"), ({"name": "x" * 61}, "name"), ({"n": "x"}, "n")],
)
def test_token_names_are_checked(client: FlaskClient, body: dict, field: str) -> None:
    refused = client.post("/api/v1/tokens", json=body)
    assert refused.status_code == 422
    assert field in [error["field"] for error in refused.get_json()["errors"]]
    assert client.post("/account/tokens", data={"token": " "}).status_code == 422


def test_ones_password_is_changed_by_who_knows_it(app: Flask, login, engine: Engine) -> None:
    browser, elsewhere = login(Role.VIEWER, password=PASSWORD), login(Role.VIEWER)
    new = {"present": PASSWORD, "password": "another battery", "again": "another battery"}
    for spoilt, told in [
        ({"present": "a guess"}, "is not your password"),
        ({"again": "another bakery"}, "is not the same"),
        ({"password": "short", "again": "short"}, "10 to"),
    ]:
        refused = browser.post("/account/password", data=new | spoilt)
        assert refused.status_code == 422
        assert told in refused.get_data(as_text=True)
    assert elsewhere.get("/account").status_code == 200
    done = browser.post("/account/password", data=new, follow_redirects=True)
    assert "Your password is changed" in done.get_data(as_text=True)
    assert elsewhere.get("/account").status_code == 303
    assert log_in(elsewhere, "a viewer", PASSWORD).status_code == 403
    assert log_in(elsewhere, "a viewer", "another battery").status_code == 303
    assert "set the password of a viewer" in browser.get("/activity").get_data(as_text=True)


def test_a_browser_left_open_is_no_place_to_guess(login) -> None:
    browser = login(Role.VIEWER, password=PASSWORD)
    guess = {"present": "a guess", "password": "another battery", "again": "another battery"}
    codes = [browser.post("/account/password", data=guess).status_code for _ in range(MAX_FAILURES + 1)]
    assert codes == [422] * MAX_FAILURES + [429]


def test_logging_out_everywhere_else(login) -> None:
    here, there = login(Role.VIEWER), login(Role.VIEWER)
    assert "Log out everywhere else" in here.get("/account").get_data(as_text=True)
    assert "logged out everywhere" in here.post("/account/sessions/close", follow_redirects=True).get_data(as_text=True)
    assert there.get("/account").status_code == 303
    assert "Nowhere else" in here.get("/account").get_data(as_text=True)


# --- Users


def test_an_administrator_makes_changes_and_locks_out_users(app: Flask, login, engine: Engine) -> None:
    admin, ben = login(Role.ADMIN), app.test_client()
    made = admin.post("/people", data={"name": " ben ", "role": "viewer", "password": PASSWORD}, follow_redirects=True)
    assert "ben" in made.get_data(as_text=True)
    assert log_in(ben, "ben", PASSWORD).status_code == 303
    user = people.find_user(engine, "ben")
    assert user is not None
    path = f"/people/{user.user_id}"
    assert ben.get("/jobs/new").status_code in (200, 403)
    admin.post(f"{path}/role", data={"role": "submitter"})
    assert ben.post("/api/v1/jobs", json={"prompts": ["a fox"]}).status_code == 201
    refused = admin.post(f"{path}/password", data={"password": "short"})
    assert refused.status_code == 422
    assert "10 to" in refused.get_data(as_text=True)
    admin.post(f"{path}/password", data={"password": "another battery"})
    assert ben.get("/api/v1/me").status_code == 401
    assert log_in(ben, "ben", "another battery").status_code == 303
    admin.post(f"{path}/disable")
    assert ben.get("/api/v1/me").status_code == 401
    assert "locked out" in admin.get("/people").get_data(as_text=True)
    assert log_in(ben, "ben", "another battery").status_code == 403
    admin.post(f"{path}/enable")
    assert log_in(ben, "ben", "another battery").status_code == 303
    told = admin.get("/activity").get_data(as_text=True)
    for words in ("made the user ben, viewer", "gave ben the role submitter", "locked ben out", "let ben in again"):
        assert words in told


def test_somebody_without_a_password_gets_a_link(app: Flask, login) -> None:
    made = login(Role.ADMIN).post("/people", data={"name": "ben", "role": "viewer", "password": ""})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    link = re.search(r'value="http://localhost(/enter/[\w-]+)"', made.get_data(as_text=True))
    assert link is not None
    ben = app.test_client()
    assert ben.get(link[1]).status_code == 303
    assert ben.get("/api/v1/me").get_json()["name"] == "ben"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "", "role": "viewer"},
        {"name": "a viewer", "role": "viewer"},
        {"name": "new", "role": "king"},
        {"name": "new", "role": "viewer", "password": "short"},
    ],
)
def test_wrong_users_are_refused_and_told_why(login, row_counts, engine: Engine, fields: dict[str, str]) -> None:
    login(Role.VIEWER)
    admin = login(Role.ADMIN)
    before = len(people.list_users(engine))
    page = admin.post("/people", data=fields)
    assert page.status_code == 422
    assert 'aria-invalid="true"' in page.get_data(as_text=True) or "role" in page.get_data(as_text=True)
    assert admin.post("/api/v1/users", json=fields).status_code == 422
    assert len(people.list_users(engine)) == before


def test_users_over_the_api(app: Flask, client: FlaskClient) -> None:
    made = client.post("/api/v1/users", json={"name": "ben", "role": "viewer", "password": PASSWORD})
    assert made.status_code == 201
    user = made.get_json()
    assert (user["role"], user["has_password"], user["disabled"]) == ("viewer", True, False)
    assert PASSWORD not in client.get("/api/v1/users").get_data(as_text=True)
    path = f"/api/v1/users/{user['id']}"
    assert client.patch(path, json={"role": "operator"}).get_json()["role"] == "operator"
    assert client.patch(path, json={"disabled": True}).get_json()["disabled"] is True
    assert client.patch(path, json={"disabled": "yes"}).status_code == 422
    assert client.patch(path, json={"name": "bob"}).status_code == 422
    assert client.patch("/api/v1/users/4711", json={"role": "viewer"}).status_code == 404
    me = client.get("/api/v1/me").get_json()
    last = client.patch(f"/api/v1/users/{me['id']}", json={"role": "viewer"})
    assert last.status_code == 422
    assert "last administrator" in last.get_json()["detail"]
    assert client.post("/api/v1/login-links", json={"user": "nobody"}).status_code == 404
    link = client.post("/api/v1/login-links").get_json()
    assert link["user"] == me["name"]
    browser = app.test_client()
    browser.get(link["url"].removeprefix("http://localhost"))
    assert browser.get("/api/v1/me").get_json()["name"] == me["name"]


def test_the_last_administrator_is_told_so_on_the_page(login, engine: Engine) -> None:
    admin = login(Role.ADMIN, "only one")
    user = people.find_user(engine, "only one")
    assert user is not None
    refused = admin.post(f"/people/{user.user_id}/role", data={"role": "viewer"})
    assert refused.status_code == 422
    assert "last administrator" in refused.get_data(as_text=True)
