"""The API is what its OpenAPI document says: whatever is generated from it gets an answer that it describes."""

import os
import re
import subprocess
import sys
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from running import RunningFarm
from sqlalchemy import Engine, text

from farm import people, webhooks
from farm.addresses import AllowedHosts
from farm.roles import Role
from farm.settings import Settings
from producer.words import save_word_list

CONFIG = """
# What the schema cannot say (an address that cannot be reached, steps that leave the refiner none, a name that is taken)
# is refused with 422, and a picture that is no picture with 415.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "415", "422", "429"]
"""


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


def test_generated_requests_get_answers_that_the_document_describes(
    settings: Settings, engine: Engine, farm, tmp_path: Path
) -> None:
    """Thousands of requests, well-formed and not, with all of schemathesis' checks: no server error, and no answer of
    another status, type or shape than the document says."""
    with engine.begin() as connection:
        # What shows the token must not be found by the requests that revoke tokens and lock users out.
        for table in ("users", "api_tokens"):
            connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 900000000)"))
    me = people.add_user(engine, "tester", Role.ADMIN)
    token = people.make_token(engine, me.user_id, "tests")
    with engine.begin() as connection:
        for table in ("users", "api_tokens"):
            connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1, false)"))
    for _ in range(3):
        farm.complete(3, output_format="latents")
    farm.fail(farm.start(farm.submit(2)), "out of memory")
    farm.add_worker("0")
    people.add_user(engine, "ana", Role.SUBMITTER)
    save_word_list(engine, "0", "red\nblue", "tester")
    webhooks.add_webhook(engine, "tester", "https://example.org/hook", AllowedHosts.read(""))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    served = RunningFarm(settings, tmp_path)
    try:
        served.start("dashboard")
        served.await_dashboard()
        ran = subprocess.run(
            [
                *(Path(sys.executable).parent / "st", "run", f"{served.url}/api/v1/openapi.json", "--checks=all"),
                *("--header", f"Authorization: Bearer {token}", "--seed=1", "--workers=2", "--max-examples=3"),
                # Streams of events have no end; tests/dashboard/test_event_streams.py reads them.
                *("--phases=examples,coverage,fuzzing", "--exclude-path-regex=/events$", "--continue-on-failure"),
            ],
            cwd=tmp_path,
            env=os.environ | {"NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
    finally:
        served.stop()
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    (generated,) = re.findall(r"(\d+) generated", ran.stdout)
    assert int(generated) > 2000
