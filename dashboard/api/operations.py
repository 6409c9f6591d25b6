"""What a route of the API takes and gives: said once, in models that validate the request and describe the route.

Not flask-openapi3: it calls views with models in place of their arguments and answers their errors itself, and knows no
route that takes JSON, a form and a stream alike. What is left is small.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Le
from flask import current_app, request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from farm.errors import InvalidSubmissionError, Problem

MAX_NUMBER = 2**63 - 1
_MAX_DIGITS = 19

View = TypeVar("View", bound=Callable[..., object])


def _written_out(value: object) -> object:
    """Numbers are no times: nobody can tell seconds from milliseconds."""
    if isinstance(value, str) and "-" not in value[1:]:
        raise ValueError("must be a time such as 2026-11-25T09:00:00Z")
    return value


Whole = Annotated[int, Field(strict=True)]
"""A whole number in an address."""
Moment = Annotated[datetime, BeforeValidator(_written_out)]
"""A time in an address, ISO 8601."""
Number = Annotated[Whole, Field(ge=0, le=MAX_NUMBER)]
"""A number of a row."""


class Query(BaseModel):
    """The query string of a route."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Document(BaseModel):
    """A JSON document that the API answers with."""


@dataclass(frozen=True, slots=True)
class Media:
    """Content that is no JSON document of ours."""

    type: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string", "format": "binary"})


Content = type[BaseModel] | Media
EVENT_STREAM = Media(
    "text/event-stream",
    {
        "type": "object",
        "description": "each event",
        "properties": {
            "event": {"type": "string", "description": "its kind"},
            "id": {"type": "string", "description": "for `Last-Event-ID`"},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
    },
)
TEXT = Media("text/plain", {"type": "string"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    tag: str
    answers: Mapping[int, tuple[Content, ...]]
    query: type[Query] | None = None
    body: tuple[Content, ...] = ()
    body_required: bool = True
    headers: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    """Headers that it heeds, and what they mean: in words, or as a schema."""
    problems: frozenset[int] = frozenset()
    """Statuses of errors of its own, beside those that any such route may answer with."""
    told: Mapping[str, str] = field(default_factory=dict)
    """Headers of its answers, and what they mean."""


def describe(
    tag: str,
    answers: Mapping[int, Content | tuple[Content, ...] | None],
    *,
    query: type[Query] | None = None,
    body: Content | tuple[Content, ...] = (),
    body_required: bool = True,
    headers: Mapping[str, str | Mapping[str, Any]] | None = None,
    problems: Iterable[int] = (),
    told: Mapping[str, str] | None = None,
) -> Callable[[View], View]:
    """Say what a view takes and gives; its docstring says what it does."""
    given = {status: _several(content) for status, content in answers.items()}
    operation = Operation(
        tag, given, query, _several(body), body_required, headers or {}, frozenset(problems), told or {}
    )

    def mark(view: View) -> View:
        view.__dict__["farm_operation"] = operation
        return view

    return mark


def refuse_other_parameters() -> None:
    """Before each request: raise InvalidSubmissionError for parameters that the route does not know, or that are given
    twice. They would have no effect, and nobody would notice.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    operation: Operation | None = getattr(view, "farm_operation", None)
    if operation is None:
        return
    known = operation.query.model_fields if operation.query is not None else {}
    for name, values in request.args.lists():
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "there are none"
            raise InvalidSubmissionError([Problem(name[:60], f"is no parameter here; {there}")])
        if len(values) > 1:
            raise InvalidSubmissionError([Problem(name, "is given more than once; once is enough")])


AnyQuery = TypeVar("AnyQuery", bound=Query)


def read_query(model: type[AnyQuery]) -> AnyQuery:
    """The query string; raises InvalidSubmissionError with what each parameter must be. An empty one says nothing."""
    given = {name: _read(model.model_fields[name], text) for name, text in request.args.items() if text}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        names = dict.fromkeys(str(one["loc"][0]) for one in error.errors())
        problems = [Problem(name, _must_be(model.model_fields[name])) for name in names]
        raise InvalidSubmissionError(problems) from None


def _several(content: Content | tuple[Content, ...] | None) -> tuple[Content, ...]:
    if content is None:
        return ()
    return content if isinstance(content, tuple) else (content,)


def _read(info: FieldInfo, text: str) -> str | int:
    """A whole number has digits only: Python itself would also read spaces, signs and underscores."""
    is_number = any(kind is int or int in get_args(kind) for kind in _kinds(info))
    return int(text) if is_number and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else text


def _kinds(info: FieldInfo) -> tuple[Any, ...]:
    """The types that a parameter may have."""
    return get_args(info.annotation) if get_origin(info.annotation) in (Union, UnionType) else (info.annotation,)


def _must_be(info: FieldInfo) -> str:
    """What a parameter must be, in words."""
    kinds = _kinds(info)
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return f"must be one of {', '.join(str(member.value) for member in kind)}"
    bounds = [*info.metadata, *(part for kind in kinds for part in _metadata(kind))]
    low = next((bound.ge for bound in bounds if isinstance(bound, Ge)), 0)
    high = next((bound.le for bound in bounds if isinstance(bound, Le)), MAX_NUMBER)
    if datetime in kinds or any(datetime in get_args(kind) for kind in kinds):
        return "must be a time such as 2026-11-25T09:00:00Z"
    if int in kinds or any(int in get_args(kind) for kind in kinds):
        return f"must be a whole number from {low} to {high}"
    return info.description or "cannot be read"


def _metadata(kind: object) -> tuple[object, ...]:
    found = getattr(kind, "__metadata__", ())
    return tuple(part for one in found for part in (getattr(one, "metadata", None) or [one]))
