"""Reads query parameters; what cannot be read is refused with its name and the remedy."""

from enum import StrEnum
from typing import TypeVar

from flask import request

from farm.errors import InvalidSubmissionError, Problem

State = TypeVar("State", bound=StrEnum)


def integer(name: str, default: int | None = None, low: int = 0, high: int = 2**63 - 1) -> int | None:
    """A whole number of the query string, or the default."""
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not low <= int(text[:20]) <= high:
        raise InvalidSubmissionError([Problem(name, f"must be a whole number from {low} to {high}")])
    return int(text)


def page_size(default: int, high: int = 500) -> int:
    """How many entries a page shall hold."""
    return integer("limit", default, 1, high) or default


def state(name: str, states: type[State]) -> State | None:
    """A state of the query string."""
    text = request.args.get(name)
    if text is None:
        return None
    try:
        return states(text)
    except ValueError:
        raise InvalidSubmissionError([Problem(name, f"must be one of {', '.join(states)}")]) from None
