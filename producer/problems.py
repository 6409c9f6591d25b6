"""What is wrong with a submission, in words for the person who reads it."""

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from farm.combinations import CombinationError
from farm.errors import MAX_PROBLEMS_SHOWN, InvalidSubmissionError, Problem

#: What pydantic says in the words of programmers.
_PLAIN_WORDS = {
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "int_type": "write a whole number",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "bool_parsing": "write true or false",
}


class Problems:
    """The first problems of a submission, and how many there are."""

    def __init__(self) -> None:
        self._first: dict[Problem, None] = {}
        self.total = 0

    def add(self, *problems: Problem) -> None:
        """Count them; what was said before counts once."""
        for problem in problems:
            if problem in self._first:
                continue
            self.total += 1
            if len(self._first) < MAX_PROBLEMS_SHOWN:
                self._first[problem] = None

    def error(self) -> InvalidSubmissionError:
        """What to raise for them, in the order of their lines."""
        first = sorted(self._first, key=lambda problem: problem.line or 0)
        return InvalidSubmissionError(first, self.total)


def problem_of(details: ErrorDetails, line: int | None, name: str | None = None) -> Problem:
    """A validation error, of the field ``name`` or of the whole, in words for the person who reads it."""
    given, kind, context = details["input"], details["type"], details.get("ctx", {})
    error = context.get("error")
    if name is None:
        name = error.field if isinstance(error, CombinationError) else str(details["loc"][0])
    if kind == "value_error":
        message = str(error)
    elif kind == "extra_forbidden":
        message = f"has no {details['loc'][-1]!r}"
    elif kind == "string_too_long":
        message = f"has {len(given):,} characters; at most {context['max_length']:,} are taken"
    elif isinstance(given, BaseModel | dict | list):
        message = f"{details['msg'][0].lower()}{details['msg'][1:]}"
    else:
        told = _PLAIN_WORDS.get(kind) or f"{details['msg'][0].lower()}{details['msg'][1:]}"
        shown = repr(given) if len(repr(given)) <= 40 else f"{repr(given)[:40]}..."
        message = f"{shown} is not possible: {told}"
    return Problem(name, message, line)
