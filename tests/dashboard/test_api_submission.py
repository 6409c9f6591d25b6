"""Submitting by stream, again under the same key, and within the limits of a token."""

import gzip
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, update
from werkzeug.test import TestResponse

from dashboard.api.submission import MAX_WHOLE_BYTES
from farm import people
from farm.limits import Limits
from farm.models import ApiToken
from farm.roles import Role
from farm.settings import Settings

NDJSON = "application/x-ndjson"
RowCounts = Callable[[], dict[str, int]]


def stream(client: FlaskClient, data: bytes, spec: dict[str, Any] | None = None, **headers: str) -> TestResponse:
    query = f"?spec={quote(json.dumps(spec))}" if spec is not None else ""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/api/v1/jobs{query}", data=data, content_type=NDJSON, headers=named)


@pytest.fixture
def with_token(app: Flask, engine: Engine) -> Callable[..., FlaskClient]:
    """Makes programs of a new user with this role, whose token is restricted."""

    def make(role: Role = Role.SUBMITTER, scopes: list[str] | None = None, **limits: int) -> FlaskClient:
        user = people.find_user(engine, role) or people.add_user(engine, role, role)
        token = people.make_token(engine, user.user_id, "program", scopes=scopes, limits=Limits(**limits))
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    return make


def test_a_stream_of_lines_is_a_job(client: FlaskClient) -> None:
    lines = b'{"prompt": "a fox", "seed": 5}\n"an owl"\n'
    answer = stream(client, lines, {"num_inference_steps": 6, "name": "Lines"})
    assert answer.status_code == 201, answer.text
    assert (answer.json["image_count"], answer.json["batch_count"]) == (2, 1)
    images = client.get(answer.json["url"] + "/images").json["images"]
    assert [(image["prompt"], image["num_inference_steps"]) for image in images] == [("a fox", 6), ("an owl", 6)]
    zipped = stream(client, gzip.compress(lines), {"name": "Zipped"}, Content_Encoding="gzip")
    assert zipped.json["image_count"] == 2


@pytest.mark.parametrize("spec", ["[1]", "{", "7"])
def test_a_spec_that_is_no_object_is_refused(client: FlaskClient, spec: str) -> None:
    answer = client.post(f"/api/v1/jobs?spec={quote(spec)}", data=b'"a fox"', content_type=NDJSON)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "spec")


def test_unknown_encodings_are_unsupported(client: FlaskClient) -> None:
    assert stream(client, b"", Content_Encoding="br").status_code == 415


def test_bad_lines_are_named_and_nothing_is_written(client: FlaskClient, row_counts: RowCounts) -> None:
    before = row_counts()
    answer = stream(client, b'"well"\n{"prompt": ""}\n{"prompt": "a", "steps": -1}\n')
    assert answer.status_code == 422
    assert [(error["line"], error["field"]) for error in answer.json["errors"]] == [
        (2, "prompt"),
        (3, "num_inference_steps"),
    ]
    assert row_counts() == before


@pytest.mark.parametrize("kind", ["json", "form", "stream"])
def test_the_same_key_and_body_are_the_same_job(client: FlaskClient, kind: str) -> None:
    def send(prompt: str, key: str) -> TestResponse:
        headers = {"Idempotency-Key": key}
        if kind == "json":
            return client.post("/api/v1/jobs", json={"prompts": [prompt]}, headers=headers)
        if kind == "stream":
            return stream(client, json.dumps(prompt).encode(), Idempotency_Key=key)
        head = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="p.txt"\r\n\r\n'
        # Each attempt of a client has another boundary.
        boundary = f"b{datetime.now(UTC).timestamp()}".encode()
        body = head % boundary + prompt.encode() + b"\r\n--%b--\r\n" % boundary
        kind_of_body = f"multipart/form-data; boundary={boundary.decode()}"
        return client.post("/api/v1/jobs", data=body, content_type=kind_of_body, headers=headers)

    first, again = send("a fox", "one"), send("a fox", '"one"')
    assert first.status_code == again.status_code == 201
    assert again.json == first.json
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.location == first.location

    other = send("an owl", "one")
    assert (other.status_code, other.mimetype) == (409, "application/problem+json")
    assert "used for another submission, job 1" in other.json["detail"]
    assert send("an owl", "two").json["id"] != first.json["id"]


def test_keys_are_each_users_own(client: FlaskClient, with_token: Callable[..., FlaskClient]) -> None:
    answers = [
        one.post("/api/v1/jobs", json={"prompts": ["a fox"]}, headers={"Idempotency-Key": "k"})
        for one in (client, with_token())
    ]
    assert [answer.json["id"] for answer in answers] == [1, 2]


@pytest.mark.parametrize("key", ["", " ", "a" * 256, "schlüssel", '""'])
def test_keys_that_cannot_be_are_refused(client: FlaskClient, key: str) -> None:
    answer = client.post("/api/v1/jobs", json={"prompts": ["a"]}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "Idempotency-Key")


def test_a_refused_submission_uses_no_key_up(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "k"}
    assert client.post("/api/v1/jobs", json={"prompts": [""]}, headers=headers).status_code == 422
    assert client.post("/api/v1/jobs", json={"prompts": ["a fox"]}, headers=headers).status_code == 201


def test_retries_at_once_make_one_job(
    app: Flask, let_in: Callable[[Flask], FlaskClient], row_counts: RowCounts
) -> None:
    clients = [let_in(app) for _ in range(8)]

    def send(client: FlaskClient) -> TestResponse:
        body = {"prompts": ["a fox"] * 500}
        return client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(send, clients)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    counts = row_counts()
    assert (counts["jobs"], counts["images"]) == (1, 500)
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 7


def test_a_rate_limit_is_told_and_kept(with_token: Callable[..., FlaskClient]) -> None:
    client = with_token(requests_per_minute=3)
    answers = [client.get("/api/v1/me") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"requests";q=3;w=60'
    assert answers[0].headers["RateLimit"].startswith('"requests";r=2;t=')
    assert answers[3].mimetype == "application/problem+json"
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
    # Another token of the same user has its own.
    assert with_token(requests_per_minute=3).get("/api/v1/me").status_code == 200


def test_images_per_day_and_unfinished_images(
    client: FlaskClient, with_token: Callable[..., FlaskClient], farm
) -> None:
    daily = with_token(images_per_day=5)
    body = {"prompts": ["a fox"], "images_per_prompt": 3, "batch_size": 1, "refiner_split": None}
    accepted = daily.post("/api/v1/jobs", json=body)
    assert accepted.status_code == 201
    assert accepted.headers["RateLimit-Policy"] == '"images-per-day";q=5;w=86400'
    assert accepted.headers["RateLimit"].startswith('"images-per-day";r=2;t=')
    refused = daily.post("/api/v1/jobs", json=body)
    assert refused.status_code == 429
    assert refused.json["violated-policies"] == ["images-per-day"]
    assert refused.json["type"].endswith("#quota-exceeded")
    assert "has submitted 3 today" in refused.json["detail"]
    # What was submitted counts, also if it is cancelled, or gone.
    assert daily.post(accepted.json["url"] + "/cancel").status_code == 200
    assert daily.post("/api/v1/jobs", json=body).status_code == 429

    at_once = with_token(concurrent_images=4)
    first = at_once.post("/api/v1/jobs", json=body)
    assert first.status_code == 201
    assert at_once.post("/api/v1/jobs", json=body).json["violated-policies"] == ["concurrent-images"]
    farm.render(first.json["id"], 2)
    assert at_once.post("/api/v1/jobs", json=body).status_code == 201
    assert at_once.get("/api/v1/me").json["token"] == {
        "scopes": ["admin", "operate", "read", "submit"],
        "requests_per_minute": None,
        "images_per_day": None,
        "concurrent_images": 4,
        "largest_job": None,
        "images_today": 6,
        "images_unfinished": 4,
    }


def test_quotas_hold_for_submissions_at_once(
    app: Flask, with_token: Callable[..., FlaskClient], engine: Engine
) -> None:
    first = with_token(images_per_day=10)
    clients = [first, *(app.test_client() for _ in range(7))]
    for client in clients[1:]:
        client.environ_base["HTTP_AUTHORIZATION"] = first.environ_base["HTTP_AUTHORIZATION"]
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda one: one.post("/api/v1/jobs", json={"prompts": ["a"] * 3}), clients)]
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 5


def test_the_largest_job(with_token: Callable[..., FlaskClient]) -> None:
    client = with_token(largest_job=2)
    assert client.post("/api/v1/jobs", json={"prompts": ["a"] * 2}).status_code == 201
    answer = client.post("/api/v1/jobs", json={"prompts": ["a"] * 3})
    assert answer.status_code == 422
    assert "would have 3 images, and at most 2 are taken" in answer.json["detail"]
    assert stream(client, b'"a"\n' * 3).status_code == 422


def test_scopes_let_in_to_what_they_are_for(with_token: Callable[..., FlaskClient]) -> None:
    reader, writer = with_token(scopes=["read"]), with_token(scopes=["submit"])
    body = {"prompts": ["a fox"]}
    assert reader.get("/api/v1/jobs").status_code == 200
    refused = reader.post("/api/v1/jobs", json=body)
    assert refused.status_code == 403
    assert "takes the scope submit, and the token has read" in refused.json["detail"]
    assert writer.post("/api/v1/jobs", json=body).status_code == 201
    assert writer.get("/api/v1/jobs").status_code == 403


def test_a_token_is_never_more_than_its_scopes_or_its_user(with_token: Callable[..., FlaskClient], farm) -> None:
    job_id = farm.submit()
    modest = with_token(Role.ADMIN, ["read", "submit"])
    assert modest.post(f"/api/v1/jobs/{job_id}/cancel").status_code == 403
    assert modest.get("/api/v1/users").status_code == 403
    assert with_token(Role.SUBMITTER, ["read", "admin"]).get("/api/v1/users").status_code == 403
    assert with_token(Role.ADMIN, ["admin"]).get("/api/v1/users").status_code == 200


@pytest.mark.parametrize("restricted", [{"scopes": ["read", "submit", "admin"]}, {"images_per_day": 5}])
def test_a_restricted_token_makes_nothing_that_can_do_more(
    with_token: Callable[..., FlaskClient], restricted: dict[str, Any]
) -> None:
    client = with_token(Role.ADMIN, **restricted)
    for path, body in (("tokens", {"name": "more"}), ("login-links", {})):
        answer = client.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 403
        assert "restricted" in answer.json["detail"]
    assert client.post("/account/tokens", data={"token": "more"}).status_code == 403


def test_tokens_end(engine: Engine, client: FlaskClient, app: Flask) -> None:
    made = client.post("/api/v1/tokens", json={"name": "short", "days": 2, "scopes": ["read"], "largest_job": 7})
    assert made.status_code == 201
    assert (made.json["scopes"], made.json["largest_job"]) == (["read"], 7)
    program = app.test_client()
    program.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {made.json['token']}"
    assert program.get("/api/v1/me").status_code == 200
    with engine.begin() as connection:
        ended = update(ApiToken).where(ApiToken.name == "short").values(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
        connection.execute(ended)
    assert program.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"days": 0}, "days"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"largest_job": 2**31}, "largest_job"),
        ({"images_per_day": "5"}, "images_per_day"),
    ],
)
def test_limits_that_cannot_be(client: FlaskClient, body: dict[str, Any], field: str) -> None:
    answer = client.post("/api/v1/tokens", json={"name": "t", **body})
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, field)


def test_settings_limit_tokens_without_limits_of_their_own(
    settings: Settings, make_app: Callable[[Settings], Flask], engine: Engine
) -> None:
    app = make_app(settings.model_copy(update={"token_largest_job": 2}))
    user = people.add_user(engine, "ana", Role.SUBMITTER)
    program = app.test_client()
    program.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {people.make_token(engine, user.user_id, 'p')}"
    assert program.post("/api/v1/jobs", json={"prompts": ["a"] * 3}).status_code == 422
    more = program.post("/api/v1/tokens", json={"name": "t", "largest_job": 3})
    assert "must be at most 2" in more.json["detail"]
    assert program.post("/api/v1/tokens", json={"name": "t", "largest_job": 1}).status_code == 201


def large(body: dict[str, Any] | str) -> bytes:
    """A JSON body that is too large to be read as a whole: blanks belong to no value."""
    text = body if isinstance(body, str) else json.dumps(body)
    return text.encode() + b" " * MAX_WHOLE_BYTES


def send_large(client: FlaskClient, body: dict[str, Any] | str, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/api/v1/jobs", data=large(body), content_type="application/json", headers=named)


@pytest.mark.parametrize(
    "body",
    [
        {"prompts": ["a fox", "an owl"], "num_inference_steps": 6, "sweep": {"guidance_scale": [3, 5]}, "seed": 1},
        {"name": "é", "rows": [{"prompt": "a fox", "seed": 5}, {"prompt": "b", "size": "64x128", "loras": []}]},
    ],
)
def test_a_large_body_says_the_same_as_a_small_one(client: FlaskClient, body: dict[str, Any]) -> None:
    whole, large_one = client.post("/api/v1/jobs", json=body), send_large(client, body)
    assert whole.status_code == large_one.status_code == 201, large_one.text
    left, right = (client.get(answer.json["url"] + "/images").json["images"] for answer in (whole, large_one))
    told = ("prompt", "num_inference_steps", "guidance_scale", "width", "height")
    assert [[image[name] for name in told] for image in left] == [[image[name] for name in told] for image in right]
    assert client.get(large_one.json["url"]).json["name"] == client.get(whole.json["url"]).json["name"]


@pytest.mark.parametrize(
    ("body", "status", "errors"),
    [
        ({"prompts": ["a", 1, ""]}, 422, [("prompt", 2, "/prompts/1"), ("prompt", 3, "/prompts/2")]),
        ({"rows": [{"prompt": "a", "seed": "1"}, 5]}, 422, [("seed", 1, "/rows/0"), ("rows", 2, "/rows/1")]),
        ({"rows": [{"prompt": "a", "stepz": 1}]}, 422, [("stepz", 1, "/rows/0")]),
        ({"prompts": ["a"], "steps": "20"}, 422, [("steps", None, "/steps")]),
        ({"prompts": ["a"], "rows": []}, 422, [("rows", None, None)]),
        ({"prompts": "a"}, 422, [("prompts", None, None)]),
        ({}, 422, [("prompt", None, None)]),
        ("[1]", 422, [("body", None, None)]),
        ('{"prompts": ["a"', 400, None),
        ('{"prompts": ["a"]} {}', 400, None),
    ],
)
def test_large_bodies_are_refused_by_the_same_rules(
    client: FlaskClient, row_counts: RowCounts, body: dict[str, Any] | str, status: int, errors: list | None
) -> None:
    before = row_counts()
    answer = send_large(client, body)
    assert answer.status_code == status, answer.text
    if errors is not None:
        found = [(one["field"], one["line"], one.get("pointer")) for one in answer.json["errors"]]
        assert found == errors
        assert row_counts() == before


def test_a_large_body_is_the_same_under_its_key(client: FlaskClient) -> None:
    first = send_large(client, {"prompts": ["a fox"]}, Idempotency_Key="k")
    again = send_large(client, {"prompts": ["a fox"]}, Idempotency_Key="k")
    assert (first.status_code, again.json["id"]) == (201, first.json["id"])
    assert send_large(client, {"prompts": ["an owl"]}, Idempotency_Key="k").status_code == 409
