"""The API's reference as a page: its OpenAPI document, for people."""

import json
import re
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, render_template
from markupsafe import Markup, escape

from dashboard.api.reference import described
from dashboard.auth import public

Json = dict[str, Any]

blueprint = Blueprint("reference", __name__)


@blueprint.app_template_filter()
def coded(text: str) -> Markup:
    """Markdown's backticks as code; nothing else of Markdown is used."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


@blueprint.get("/api/docs")
@public
def index() -> str:
    """All operations by subject, with what they take and give."""
    document = described()
    by_tag: dict[str, list[Json]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append(_shown(document, path, method, operation))
    return render_template("reference.html", document=document, by_tag=by_tag)


def _shown(document: Json, path: str, method: str, operation: Json) -> Json:
    body = operation.get("requestBody", {}).get("content", {})
    return {
        **operation,
        "path": path,
        "method": method.upper(),
        "bodies": [
            (kind, [*_fields(document, content["schema"])], _example(document, content))
            for kind, content in body.items()
        ],
        "answers": [
            (status, answer["description"], _documents(document, answer))
            for status, answer in operation["responses"].items()
            if "$ref" not in answer
        ],
        "problems": [
            (status, document["components"]["responses"][answer["$ref"].rpartition("/")[2]]["description"])
            for status, answer in operation["responses"].items()
            if "$ref" in answer
        ],
        "parameters": [
            (one["name"], one["in"], _type(document, one["schema"]), one.get("description", ""))
            for one in operation.get("parameters", [])
        ],
    }


def _documents(document: Json, answer: Json) -> list[tuple[str, list[tuple[str, str, bool, str]]]]:
    return [(kind, [*_fields(document, one["schema"])]) for kind, one in answer.get("content", {}).items()]


def _fields(document: Json, schema: Json) -> Iterator[tuple[str, str, bool, str]]:
    """The fields of an object: name, type, whether it is needed, and what it means."""
    schema = _resolved(document, schema)
    for name, one in schema.get("properties", {}).items():
        yield name, _type(document, one), name in schema.get("required", []), one.get("description", "")


def _type(document: Json, schema: Json) -> str:
    """A type in a few words."""
    if "$ref" in schema:
        found = _resolved(document, schema)
        return _type(document, found) if "enum" in found else str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(document, one) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        inner = schema.get("items")
        return f"list of {_type(document, inner)}" if inner else "list"
    kind = str(schema.get("format") or schema.get("type") or "anything")
    bounds = [str(schema[name]) for name in ("minimum", "maximum") if name in schema]
    return f"{kind}, {' to '.join(bounds)}" if len(bounds) == 2 else kind


def _example(document: Json, content: Json) -> str:
    examples = _resolved(document, content["schema"]).get("examples")
    return json.dumps(examples[0], indent=2) if examples else ""


def _resolved(document: Json, schema: Json) -> Json:
    if "$ref" not in schema:
        return schema
    found: Json = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found
