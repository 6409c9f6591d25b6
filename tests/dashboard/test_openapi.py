"""The API is what its OpenAPI document says: whatever is generated from it gets an answer that it describes."""

import re

from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

EXAMPLES = 40


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
