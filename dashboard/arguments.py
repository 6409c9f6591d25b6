"""Reads query parameters; what cannot be read is refused with its name and the remedy."""

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from flask import request
from typing_extensions import override
from werkzeug.routing import IntegerConverter

from farm.errors import InvalidSubmissionError, Problem

State = TypeVar("State", bound=StrEnum)

#: Digits of the largest number that Postgres holds. Python itself refuses to read numbers of thousands of digits.
_MAX_DIGITS = 19
_MAX_NUMBER = 2**63 - 1
#: Longer searches are cut: nobody types them.
MAX_TEXT = 500


class NumberConverter(IntegerConverter):
    """Numbers in paths: those that no row can have are not found, rather than an error."""

    regex = rf"[0-9]{{1,{_MAX_DIGITS}}}"

    @override
    def to_python(self, value: str) -> int:
        # An address that fits no route but for its number would be told of a wrong method.
        return min(int(value), _MAX_NUMBER)


def integer(name: str, default: int | None = None, low: int = 0, high: int = _MAX_NUMBER) -> int | None:
    """A whole number of the query string, or the default."""
    given = request.args.get(name)
    if given is None:
        return default
    readable = given.isascii() and given.isdigit() and len(given) <= _MAX_DIGITS
    if not readable or not low <= int(given) <= high:
        raise InvalidSubmissionError([Problem(name, f"must be a whole number from {low} to {high}")])
    return int(given)


def text(name: str) -> str | None:
    """Words of the query string; None for blanks. NUL characters are in no text of the database."""
    value = request.args.get(name, "").replace("\0", "").strip()
    return value[:MAX_TEXT] or None


def one_of(name: str, numbers: Iterable[int]) -> int:
    """One of these numbers, by default the first."""
    numbers = list(numbers)
    number = integer(name, numbers[0])
    if number not in numbers:
        raise InvalidSubmissionError([Problem(name, f"must be one of {', '.join(map(str, numbers))}")])
    return number


def page_size(default: int, high: int = 500) -> int:
    """How many entries a page shall hold."""
    return integer("limit", default, 1, high) or default


def state(name: str, states: type[State]) -> State | None:
    """A state of the query string."""
    given = request.args.get(name)
    if not given:
        return None
    try:
        return states(given)
    except ValueError:
        raise InvalidSubmissionError([Problem(name, f"must be one of {', '.join(states)}")]) from None
