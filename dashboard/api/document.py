"""The API as an OpenAPI 3.1 document, from the models that validate its requests."""

import inspect
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal, cast

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from werkzeug.routing import Rule

from dashboard.api.operations import MAX_NUMBER, Content, Media, Operation
from dashboard.api.schemas.farm import ProblemDocument
from farm import __version__

Json = dict[str, Any]

PREFIX = "/api/v1"
REFERENCE = "#/components/schemas/{model}"
TAGS = {
    "jobs": "Submit, list, steer and delete jobs.",
    "images": "What jobs made: parameters, files, marks, archives.",
    "events": "What happens, as it happens: server-sent events that can be resumed.",
    "inputs": "Pictures that go in, named by their content.",
    "catalog": "What can be rendered with, with limits and defaults.",
    "workers": "Who renders, what waits, and how fast it goes.",
    "presets": "Fields of jobs under a name.",
    "words": "Lists of words for prompt templates.",
    "webhooks": "Addresses that are told of events.",
    "people": "Users, tokens, log-in links, and the log of what people did.",
}
_DESCRIPTION = """
Every request shows an API token (`Authorization: Bearer farm_...`). Errors are problem documents (RFC 9457); a refused
request lists what is wrong in `errors`, each with its `field`, `message`, `line` and, in a JSON body, `pointer`. Lists
go on with the `next` of the last page. Tokens with limits are told what is left in the headers `RateLimit-Policy` and
`RateLimit`.
"""
_CONVERTER = re.compile(r"<(?:(\w+):)?(\w+)>")
_Models = dict[tuple[type[BaseModel], JsonSchemaMode], Json]


def document(app: Flask) -> Json:
    """The document of this application's API."""
    routes = sorted(_routes(app), key=lambda route: (route[0].rule, route[1]))
    used = {(ProblemDocument, "serialization")} | {
        pair for _, _, operation, _ in routes for pair in _models_of(operation)
    }
    ordered = sorted(used, key=lambda pair: (pair[0].__name__, pair[1]))
    schemas, definitions = models_json_schema(cast("Any", ordered), ref_template=REFERENCE)
    paths: dict[str, Json] = {}
    for rule, method, operation, view in routes:
        path = _CONVERTER.sub(r"{\2}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _operation(rule, operation, view, cast("_Models", schemas))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sdxl-farm",
            "version": __version__,
            "summary": "A render farm for Stable Diffusion XL.",
            "description": _DESCRIPTION.strip(),
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": name, "description": told} for name, told in TAGS.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API token of the page Account."}
            },
            "responses": {
                "Problem": {
                    "description": "What is wrong, and what to do about it.",
                    "content": {
                        "application/problem+json": {"schema": schemas[(ProblemDocument, "serialization")]},
                    },
                }
            },
            "schemas": _plainly(definitions.get("$defs", {})),
        },
    }


def _routes(app: Flask) -> Iterator[tuple[Rule, str, Operation, Any]]:
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        operation = getattr(view, "farm_operation", None)
        if operation is not None and rule.rule.startswith(PREFIX):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method, operation, view


def _models_of(operation: Operation) -> Iterator[tuple[type[BaseModel], Literal["validation", "serialization"]]]:
    for content in operation.body:
        if not isinstance(content, Media):
            yield content, "validation"
    if operation.query is not None:
        yield operation.query, "validation"
    for contents in operation.answers.values():
        for content in contents:
            if not isinstance(content, Media):
                yield content, "serialization"


def _operation(rule: Rule, operation: Operation, view: Any, schemas: _Models) -> Json:
    summary, _, more = inspect.cleandoc(view.__doc__ or "").partition("\n")
    told: Json = {
        "operationId": rule.endpoint.removeprefix("api_").replace(".", "_"),
        "tags": [operation.tag],
        "summary": _plain(summary),
        "responses": {
            **{str(status): _answer(status, contents, schemas) for status, contents in operation.answers.items()},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if more.strip():
        told["description"] = _plain(more.strip())
    if parameters := [*_path(rule), *_query(operation), *_headers(operation)]:
        told["parameters"] = parameters
    if operation.body:
        told["requestBody"] = {
            "required": operation.body_required,
            "content": dict(_content(one, "validation", schemas) for one in operation.body),
        }
    return told


def _answer(status: int, contents: tuple[Content, ...], schemas: _Models) -> Json:
    answer: Json = {"description": HTTPStatus(status).phrase}
    if contents:
        answer["content"] = dict(_content(one, "serialization", schemas) for one in contents)
    return answer


def _content(content: Content, mode: JsonSchemaMode, schemas: _Models) -> tuple[str, Json]:
    if isinstance(content, Media):
        return content.type, {"schema": dict(content.schema)}
    return "application/json", {"schema": schemas[(content, mode)]}


def _path(rule: Rule) -> Iterator[Json]:
    for kind, name in _CONVERTER.findall(rule.rule):
        number = {"type": "integer", "minimum": 0 if name == "index" else 1, "maximum": MAX_NUMBER}
        schema = number if kind == "int" else {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query(operation: Operation) -> Iterator[Json]:
    if operation.query is None:
        return
    # Each parameter's own schema: those of the whole model point to definitions by name, which are ours too.
    whole = operation.query.model_json_schema(ref_template=REFERENCE)
    for name, schema in whole["properties"].items():
        schema.pop("title", None)
        parameter = {"name": name, "in": "query", "required": False, "allowEmptyValue": True}
        if told := schema.pop("description", None):
            parameter["description"] = told
        yield {**parameter, "schema": _without_null(schema)}


def _without_null(schema: Json) -> Json:
    """What is left out of an address is null; nobody can write null there."""
    schema = {name: value for name, value in schema.items() if not (name == "default" and value is None)}
    options = [one for one in schema.pop("anyOf", []) if one != {"type": "null"}]
    if len(options) == 1:
        return {**options[0], **schema}
    return {**schema, "anyOf": options} if options else schema


def _headers(operation: Operation) -> Iterator[Json]:
    for name, told in operation.headers.items():
        yield {"name": name, "in": "header", "description": told, "schema": {"type": "string"}}


def _plainly(schema: Any) -> Any:
    """Without defaults of null: what may be left out need not be nullable."""
    if isinstance(schema, dict):
        return {name: _plainly(one) for name, one in schema.items() if not (name == "default" and one is None)}
    return [_plainly(one) for one in schema] if isinstance(schema, list) else schema


def _plain(text: str) -> str:
    """A docstring as Markdown."""
    return text.replace("``", "`")
