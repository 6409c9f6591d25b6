"""The OpenAPI document: it is valid, complete and true, as schemathesis finds by trying."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import ValidationError
from running import RunningFarm
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from sqlalchemy import Engine, insert, text

from dashboard.api.document import PLACES
from dashboard.api.operations import Media, Operation
from farm import people, webhooks
from farm.addresses import AllowedHosts
from farm.keys import input_key
from farm.models import Input
from farm.roles import Role
from farm.settings import Settings
from producer.words import save_word_list

#: What the schemas cannot say: bodies and queries that fit them may still be refused as impossible.
BEYOND_SCHEMAS = {
    "POST /api/v1/jobs": "which parameters go together, and with which pipeline",
    "POST /api/v1/estimate": "as a job",
    "POST /api/v1/inputs": "a picture must be one",
    "PUT /api/v1/word-lists/{name}": "a list has words, and small letters for a name",
    "POST /api/v1/users": "a name is taken once",
    "PATCH /api/v1/users/{user_id}": "the last administrator stays one",
    "POST /api/v1/webhooks": "an address is one of the web, and may be reached",
    "PATCH /api/v1/webhooks/{webhook_id}": "an address is one of the web, and may be reached",
    "POST /api/v1/tokens": "names are printable",
    "POST /api/v1/presets": "names are printable",
    "PATCH /api/v1/jobs/{job_id}/images/{index}": "tags are printable",
    "POST /api/v1/jobs/{job_id}/marks": "tags are printable, and ranges go upwards",
    "GET /api/v1/jobs/{job_id}/images": "ranges go upwards",
    "GET /api/v1/jobs/{job_id}/archive": "ranges go upwards",
    "POST /api/v1/jobs/{job_id}/archive": "ranges go upwards",
}
#: What no one is given here: nothing is being denoised.
NEVER_FOUND = {"GET /api/v1/jobs/{job_id}/images/{index}/preview"}
#: No generated number is that of the administrator whose token all requests show.
WHO_ASKS = 1_000_000


@schemathesis.serializer("application/x-ndjson", "application/jsonl", "application/x-jsonlines", "image/*")
def as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def test_the_document_is_openapi_3_1_and_everybody_may_read_it(stranger: FlaskClient) -> None:
    answer = stranger.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.json["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(answer.json).validate()


def test_every_route_is_in_the_document_and_nothing_else(app: Flask, stranger: FlaskClient) -> None:
    document = stranger.get("/api/v1/openapi.json").json
    told = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    routes = {
        f"{method} " + re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/v1/")
    }
    assert told == routes - {"GET /api/v1/openapi.json"}


def operations(app: Flask) -> dict[str, Any]:
    """What the document must tell: method and path, with the operation that the view declares."""
    found = {}
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/v1/"):
            path = re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule)
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                found[f"{method} {path}"] = getattr(app.view_functions[rule.endpoint], "farm_operation", None)
    return found


def test_json_is_typed_and_forms_are_text(client: FlaskClient) -> None:
    for body, pointer in (
        ({"prompts": ["a"], "num_inference_steps": "20"}, "/num_inference_steps"),
        ({"prompts": ["a"], "watermark": 1}, "/watermark"),
        ({"prompts": ["a"], "steps": True}, "/steps"),
        ({"rows": [{"prompt": "a"}, {"prompt": "b", "width": "512"}]}, "/rows/1/width"),
        ({"prompts": ["a"], "loras": 5}, "/loras"),
    ):
        answer = client.post("/api/v1/estimate", json=body)
        assert answer.status_code == 422, body
        assert [one["pointer"] for one in answer.get_json(force=True)["errors"]] == [pointer]
    for body in ({"steps": 4.0}, {"loras": "tiny-warm:0.5"}, {"size": "256x256"}, {"original_size": [256, 256]}):
        answer = client.post("/api/v1/estimate", json={"prompts": ["a"], "pipeline": "tiny", **body})
        assert answer.status_code == 200, answer.text


def test_what_no_route_knows_is_refused_rather_than_without_effect(client: FlaskClient, farm) -> None:
    job_id = farm.complete()
    for address in ("jobs?stat=completed", "jobs?state=failed&state=queued", f"jobs/{job_id}?full=1", "me?x="):
        assert client.get(f"/api/v1/{address}").status_code == 422, address
    # A number that no row can have is no other method.
    assert client.post(f"/api/v1/jobs/{2**63}/archive", json={}).status_code == 404


def test_jobs_that_have_ended_and_others(client: FlaskClient, farm) -> None:
    ended, waiting = farm.complete(), farm.submit()
    for finished, expected in (("true", ended), ("false", waiting)):
        jobs = client.get(f"/api/v1/jobs?finished={finished}").get_json()["jobs"]
        assert [job["id"] for job in jobs] == [expected]


def test_what_no_text_of_the_database_holds_finds_nothing(client: FlaskClient, farm) -> None:
    farm.submit()
    for found, query in (
        ("jobs", "owner=a%00"),
        ("jobs", "pipeline=%00"),
        ("jobs", "q=%00"),
        ("activities", "actor=a%00"),
        ("activities", "action=%00"),
    ):
        answer = client.get(f"/api/v1/{found}?{query}")
        assert (answer.status_code, answer.get_json()[found]) == (200, []), query
    assert client.post("/api/v1/login-links", json={"user": "\0"}).status_code == 404


def test_presets_keep_loras_as_they_were_given(client: FlaskClient) -> None:
    for given, kept in (
        ("tiny-warm:0.5", "tiny-warm:0.5"),
        (["tiny-warm", {"name": "tiny-cool"}], "tiny-warm, tiny-cool:1.0"),
        ([{"weight": 1}], '[{"weight": 1}]'),
    ):
        answer = client.post("/api/v1/presets", json={"name": "p", "fields": {"loras": given}})
        assert answer.get_json()["fields"] == {"loras": kept}


@pytest.fixture
def token(engine: Engine, farm) -> str:
    """The token of an administrator, on a farm in which there is something of everything."""
    with engine.begin() as connection:
        for table in ("users", "api_tokens"):
            connection.execute(text(f"ALTER SEQUENCE {table}_id_seq RESTART WITH {WHO_ASKS}"))
    chief = people.add_user(engine, "chief", Role.ADMIN)
    token = people.make_token(engine, chief.user_id, "tests")
    for name in ("ada", "bob"):
        user = people.add_user(engine, name, Role.SUBMITTER)
        people.make_token(engine, user.user_id, "of another")
    # What the document's examples name: a job that has finished its first image and goes on, a worker, a picture.
    farm.finish(farm.start(farm.submit(2, output_format="latents")))
    farm.add_worker(PLACES["worker_id"][1])
    with engine.begin() as connection:
        digest = str(PLACES["ref"][1]).removeprefix("sha256:")
        farm.store.put(input_key(digest), farm.square(1, "PNG"), "image/png")
        connection.execute(insert(Input).values(sha256=digest, width=64, height=64, size=100, media_type="image/png"))
    farm.complete(2)
    farm.submit(3)
    failed = farm.submit(1)
    farm.fail(farm.start(failed), "black picture")
    save_word_list(engine, "animals", "cat\ndog", "chief")
    for number in range(2):
        webhook = webhooks.add_webhook(engine, "chief", f"https://example.org/hook/{number}", AllowedHosts.read(""))
        webhooks.send_test(engine, webhook.id)
    return token


@pytest.fixture
def spared() -> Iterator[None]:
    """Nobody revokes the token, or locks out the user, with which all is tried."""

    @schemathesis.hook
    def before_call(_context: Any, case: Any, _arguments: Any) -> None:
        for name in ("user_id", "token_id"):
            if str(case.path_parameters.get(name)) == str(WHO_ASKS):
                case.path_parameters[name] = 1

    yield
    schemathesis.hooks.unregister_all()


def config(token: str) -> SchemathesisConfig:
    accepted = ["2xx", "3xx", "401", "403", "404", "409", "422", "429"]
    beyond = {"checks": {"positive_data_acceptance": {"expected-statuses": accepted}}}
    return SchemathesisConfig.from_dict(
        {
            "seed": 7,
            "request-timeout": 60,
            # Streams of the farm have no end.
            "max-stream-events": 1,
            "workers": 1,
            "headers": {"Authorization": f"Bearer {token}"},
            "generation": {
                "max-examples": 10,
                "deterministic": True,
                "database": "none",
                "no-shrink": True,
                # Documents cannot say that a query has no other parameters: ours refuse them.
                "allow-extra-parameters": False,
            },
            "phases": {"stateful": {"enabled": False}},
            "operations": [
                {"include-name": name, **beyond}
                # Its body is that of a job, whose every field is tried there.
                | ({"phases": {"coverage": {"enabled": False}}} if name == "POST /api/v1/estimate" else {})
                for name in BEYOND_SCHEMAS
            ],
        }
    )


@pytest.mark.usefixtures("spared")
def test_what_the_document_says_is_true(app: Flask, settings: Settings, token: str, tmp_path: Path) -> None:
    known, statuses, failures, errors = operations(app), defaultdict(Counter), {}, []
    served = RunningFarm(settings, tmp_path)
    try:
        served.start("dashboard")
        served.await_dashboard()
        schema = schemathesis.openapi.from_url(f"{served.url}/api/v1/openapi.json", config=config(token))
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                recorder = event.recorder
                for number, tried in recorder.interactions.items():
                    if tried.response is not None and recorder.label.startswith(f"{tried.request.method} "):
                        statuses[recorder.label][tried.response.status_code] += 1
                        unknown = undocumented(known[recorder.label], tried.response)
                        if unknown is not None:
                            failures[recorder.label, "undocumented members"] = unknown
                    for check in recorder.checks.get(number, []):
                        if check.failure_info is not None:
                            asked, given = recorder.cases[number].value, tried.response
                            failures[recorder.label, check.name] = (
                                f"{check.failure_info.failure.message}\n{asked.as_curl_command()}"
                                f"\n{given and given.status_code} {given and given.content[:500]!r}"
                            )
            elif isinstance(event, events.NonFatalError | events.FatalError):
                errors.append(event)
    finally:
        served.stop()
    assert not failures, "\n\n".join(f"{' '.join(name)}: {told}" for name, told in failures.items())
    assert errors == []
    assert sum(map(Counter.total, statuses.values())) > 3_000
    # Nothing is true only because nothing was ever done.
    done = {name for name, answers in statuses.items() if any(200 <= status < 300 for status in answers)}
    assert set(known) - done == NEVER_FOUND | {"GET /api/v1/openapi.json"}


def undocumented(operation: Operation, response: Any) -> str | None:
    """What an answer holds and its model does not know: documents leave room for it, we do not."""
    for content in operation.answers.get(response.status_code, ()):
        if not isinstance(content, Media):
            try:
                content.model_validate_json(response.content, extra="forbid")
            except ValidationError as error:
                return str(error)
    return None
