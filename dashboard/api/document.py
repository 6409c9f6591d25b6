"""The API as an OpenAPI 3.1 document, from the models that validate its requests."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Literal, cast

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema
from typing_extensions import override
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
    "retention": "How long pictures are kept, and what is removed.",
    "people": "Users, tokens, log-in links, and the log of what people did.",
}
_DESCRIPTION = """
Every request shows an API token (`Authorization: Bearer farm_...`). Errors are problem documents (RFC 9457); a refused
request lists what is wrong in `errors`, each with its `field`, `message`, `line` and, in a JSON body, `pointer`. Lists
go on with the `next` of the last page. Tokens with limits are told what is left in the headers `RateLimit-Policy` and
`RateLimit`.
"""
#: What may happen to requests, in words.
_PROBLEMS = {
    HTTPStatus.BAD_REQUEST: "What was sent cannot be read.",
    HTTPStatus.UNAUTHORIZED: "Nobody is logged in, or the token is not known.",
    HTTPStatus.FORBIDDEN: "The role, or the token's scopes, do not allow it.",
    HTTPStatus.NOT_FOUND: "There is no such thing.",
    HTTPStatus.CONFLICT: "It is in a state that does not allow it.",
    HTTPStatus.GONE: "Its picture was removed.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is larger than the farm accepts.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is of a media type that is not taken here.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Refused as a whole; `errors` lists what is wrong, each with its place.",
    HTTPStatus.TOO_MANY_REQUESTS: "More than the token may do now.",
    HTTPStatus.BAD_GATEWAY: "The object store does not answer.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer, or all places are taken.",
}
_TRY_AGAIN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_LIMITS = {
    "RateLimit-Policy": "The limits of the token (draft-ietf-httpapi-ratelimit-headers).",
    "RateLimit": "What is left of them.",
}
_LIMIT_REFERENCES = {name: {"$ref": f"#/components/headers/{name}"} for name in _LIMITS}
#: What stands in paths: what it means, and an example.
PLACES: dict[str, tuple[str, int | str]] = {
    "job_id": ("number of a job", 1),
    "index": ("index of an image in its job, from 0", 0),
    "token_id": ("number of a token", 1),
    "user_id": ("number of a user", 1),
    "owner": ("name of an owner; `*` is everybody without a policy", "ana"),
    "preset_id": ("number of a preset", 1),
    "webhook_id": ("number of a webhook", 1),
    "delivery_id": ("number of a delivery", 1),
    "worker_id": ("name of a worker, as the list has it", "workstation/cuda:0/1f2e3d4c"),
    "ref": ("a picture: `sha256:` and 64 hexadecimal digits", f"sha256:{'01' * 32}"),
    "name": ("its name", "animals"),
}
_CONVERTER = re.compile(r"<(?:(\w+):)?(\w+)>")
_Models = dict[tuple[type[BaseModel], JsonSchemaMode], Json]


def document(app: Flask, pipelines: Iterable[str]) -> Json:
    """The document of this application's API; jobs may name one of these pipelines."""
    routes = sorted(_routes(app), key=lambda route: (route[0].rule, route[1]))
    used = {(ProblemDocument, "serialization")} | {
        pair for _, _, operation, _ in routes for pair in _models_of(operation)
    }
    ordered = sorted(used, key=lambda pair: (pair[0].__name__, pair[1]))
    schemas, definitions = models_json_schema(cast("Any", ordered), ref_template=REFERENCE, schema_generator=_Generator)
    components = _plainly(definitions.get("$defs", {}))
    _name_pipelines(components, [*pipelines])
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
                _name(status): _problem(status, schemas[(ProblemDocument, "serialization")]) for status in _PROBLEMS
            },
            "headers": _headers_told(_LIMITS),
            "schemas": components,
        },
    }


class _Generator(GenerateJsonSchema):
    """Without titles that only repeat the names of fields."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    @override
    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        result = super().default_schema(schema)
        # What may be left out is not sent as its default: an empty list is none.
        if self.mode == "validation" and not isinstance(result.get("default"), int):
            result.pop("default", None)
        return result


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
    is_public = getattr(view, "farm_role", ...) is None
    told: Json = {
        "operationId": rule.endpoint.removeprefix("api_").replace(".", "_"),
        "tags": [operation.tag],
        "summary": _plain(summary),
        "responses": {
            **{
                str(status): _answer(status, contents, operation.told, schemas)
                for status, contents in operation.answers.items()
            },
            **{
                str(int(status)): {"$ref": f"#/components/responses/{_name(status)}"}
                for status in sorted(_problems_of(rule, operation, is_public=is_public))
            },
        },
        **({"security": []} if is_public else {}),
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


def _problems_of(rule: Rule, operation: Operation, *, is_public: bool) -> set[int]:
    """Statuses of the errors that this route may answer with."""
    problems = {*operation.problems, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE}
    if not is_public:
        problems |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}
    if rule.arguments:
        problems.add(HTTPStatus.NOT_FOUND)
    if operation.body:
        problems |= {
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        }
    return problems


def _problem(status: HTTPStatus, schema: Json) -> Json:
    again = {"Retry-After": "Seconds after which it is worth trying again."} if status in _TRY_AGAIN else {}
    return {
        "description": _PROBLEMS[status],
        "headers": {**_headers_told(again), **_LIMIT_REFERENCES},
        "content": {"application/problem+json": {"schema": schema}},
    }


def _name(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "")


def _headers_told(headers: Mapping[str, str]) -> Json:
    return {name: {"description": told, "schema": {"type": "string"}} for name, told in headers.items()}


def _name_pipelines(components: Json, names: list[str]) -> None:
    """What may be submitted names an entry of the catalog; what is shown of old jobs may be there no more."""
    for model in ("SubmissionBody", "JobFields"):
        for arm in components.get(model, {}).get("properties", {}).get("pipeline", {}).get("anyOf", []):
            if arm == {"type": "string"}:
                arm["enum"] = names


def _answer(status: int, contents: tuple[Content, ...], told: Mapping[str, str], schemas: _Models) -> Json:
    headers = {**_headers_told(told), **_LIMIT_REFERENCES}
    answer: Json = {"description": HTTPStatus(status).phrase, "headers": headers}
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
        told, example = PLACES[name]
        shown = {"description": told, "example": example}
        yield {"name": name, "in": "path", "required": True, **shown, "schema": schema}


def _query(operation: Operation) -> Iterator[Json]:
    if operation.query is None:
        return
    # Each parameter's own schema: those of the whole model point to definitions by name, which are ours too.
    whole = operation.query.model_json_schema(ref_template=REFERENCE, schema_generator=_Generator)
    for name, schema in whole["properties"].items():
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
        schema = {"description": told} if isinstance(told, str) else told
        yield {"name": name, "in": "header", "schema": {"type": "string", **schema}}


def _plainly(schema: Any) -> Any:
    """Without defaults of null: what may be left out need not be nullable."""
    if isinstance(schema, dict):
        return {name: _plainly(one) for name, one in schema.items() if not (name == "default" and one is None)}
    return [_plainly(one) for one in schema] if isinstance(schema, list) else schema


def _plain(text: str) -> str:
    """A docstring as Markdown."""
    return text.replace("``", "`")
