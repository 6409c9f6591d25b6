"""Reads JSON bodies; what does not fit is refused with the field's name, its place and the reason."""

import json
from typing import Any, TypeVar

from flask import g, request
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.config import JsonDict
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from dashboard.api.operations import MAX_NUMBER
from farm.errors import InvalidSubmissionError, Problem

Json = dict[str, Any]


class Body(BaseModel):
    """A body with exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


def shown(**fields: Any) -> JsonDict:
    """What a body's schema shows as its example."""
    return {"examples": [fields]}


AnyBody = TypeVar("AnyBody", bound=Body)


def read_body(model: type[AnyBody], *, required: bool = True) -> AnyBody:
    """The JSON body; none says nothing where it is not required. Raises InvalidSubmissionError, BadRequest,
    UnsupportedMediaType.
    """
    data = request.get_data(cache=False)
    if not data and not required:
        return model()
    _require_json()
    body = parse_object(data)
    g.pointer = lambda problem: pointer(*problem.field.split(".")) if problem.field.split(".")[0] in body else None
    try:
        # From JSON: only there a text may be a time.
        return model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        problems = [Problem(".".join(map(str, one["loc"])) or "body", one["msg"].lower()) for one in error.errors()]
        raise InvalidSubmissionError(problems) from None


def read_json_object(model: type[BaseModel] | None = None, *, closed: bool = False) -> Json:
    """The JSON body as an object. With a model, its fields have the types that the model says; what they must be beyond
    that is left to the reader, and also what to say of others, unless they are ``closed``.

    Raises InvalidSubmissionError, BadRequest, UnsupportedMediaType.
    """
    data = request.get_data(cache=False)
    _require_json()
    body = parse_object(data)
    g.pointer = lambda problem: pointer(problem.field) if problem.field in body else None
    if model is not None:
        for name in body if closed else ():
            if name not in model.model_fields:
                known = ", ".join(model.model_fields)
                raise InvalidSubmissionError([Problem(name[:60], f"is no field here; there are {known}")])
        require_types(model, data)
    return body


def parse_object(data: bytes) -> Json:
    """A JSON object; raises BadRequest for what is no JSON, InvalidSubmissionError for what is no object."""
    try:
        body = json.loads(data, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is no JSON: {error}.") from None
    if not isinstance(body, dict):
        raise InvalidSubmissionError([Problem("body", 'must be an object such as {"prompts": ["a fox"]}')])
    return body


def require_types(model: type[BaseModel], data: bytes, entry: int | None = None) -> None:
    """Raise InvalidSubmissionError for values of another type than the model says: in JSON ``"20"`` is no number.

    Entries of ``prompts`` and ``rows`` are counted from 1, like the lines of a file; ``entry`` is the number of one
    that is checked by itself.
    """
    try:
        model.model_validate_json(data, strict=True)
    except ValidationError as error:
        problems: dict[tuple[int | None, str], Problem] = {}
        for one in error.errors(include_context=False):
            whole = isinstance(one["input"], float) and one["input"].is_integer()
            if one["type"].endswith("_type") and not (whole and one["type"] == "int_type"):
                line, name = place = (entry, str(one["loc"][0])) if entry is not None else _place(one["loc"])
                # Where one of several types will do, each says so: the first is enough.
                problems.setdefault(place, Problem(name, f"{one['msg'][0].lower()}{one['msg'][1:]}", line))
        if problems:
            raise InvalidSubmissionError([*problems.values()]) from None


def _number(text: str) -> int | float:
    """In JSON, 20.0 is a whole number."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= MAX_NUMBER else number


def pointer(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _place(loc: tuple[int | str, ...]) -> tuple[int | None, str]:
    """Line and field of a place in a body."""
    names = [step for step in loc if isinstance(step, str)]
    if len(loc) > 1 and loc[0] in ("prompts", "rows") and isinstance(loc[1], int):
        return loc[1] + 1, "prompt" if loc[0] == "prompts" else (names[1] if len(names) > 1 else "rows")
    if loc and loc[0] == "filter" and len(names) > 1:
        return None, names[1]
    return None, names[0] if names else "body"


def _require_json() -> None:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send application/json.")
