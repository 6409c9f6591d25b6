"""Reads what clients of other APIs send: checked by models, refused in the farm's words."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import MultiDict

from dashboard.compatible.errors import UnknownModelError
from dashboard.context import context
from farm.catalog import Pipeline
from farm.errors import InvalidSubmissionError, NotFoundError, Problem

Body = TypeVar("Body", bound=BaseModel)

#: What the form of a list, or of an object, adds to a field's name.
_NESTED = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")
_DATA_URL = re.compile(r"data:[\w.+/-]*;base64,")


def read_body(kind: type[Body], values: Mapping[str, Any]) -> Body:
    """The values as the model has them; raises InvalidSubmissionError.

    Null in the model's own fields is as good as nothing; in further ones it may say something.
    """
    said = {name: value for name, value in values.items() if value is not None or name not in kind.model_fields}
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        raise InvalidSubmissionError(
            [
                Problem(".".join(map(str, one["loc"])), f"{one['msg'][:1].lower()}{one['msg'][1:]}")
                for one in error.errors()
            ]
        ) from None


def form_values(form: MultiDict[str, str]) -> dict[str, Any]:
    """The fields of a form, in which ``a[]`` are the entries of a list, and ``a[b]`` is a member of an object."""
    values: dict[str, Any] = {}
    for name, texts in form.lists():
        nested = _NESTED.fullmatch(name)
        if nested is None:
            values[name] = texts[-1]
        elif not nested[2]:
            values[nested[1]] = texts
        else:
            members = values.setdefault(nested[1], {})
            if not isinstance(members, dict):
                raise refusal(nested[1], "is both a list and an object; send one of them")
            members[nested[2]] = texts[-1]
    return values


def read_base64(field: str, text: str) -> bytes:
    """The bytes of a base64 text or data URL; raises InvalidSubmissionError."""
    start = _DATA_URL.match(text)
    try:
        return base64.b64decode(text[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError):
        raise refusal(field, "is no base64; encode the picture itself, addresses are not fetched") from None


def pipeline_called(name: str) -> Pipeline:
    """The pipeline of this name; raises UnknownModelError."""
    try:
        return context().catalog.get(name)
    except NotFoundError as error:
        raise UnknownModelError(str(error)) from None


def refusal(field: str, message: str) -> InvalidSubmissionError:
    """Why a body is refused."""
    return InvalidSubmissionError([Problem(field, message)])


def listed(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(sorted(names))
