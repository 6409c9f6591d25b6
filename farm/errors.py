"""Every error that the farm raises on purpose. Messages are written for the person who reads them."""

from dataclasses import dataclass
from typing import Any

#: A refusal lists at most this many problems, and counts the rest.
MAX_PROBLEMS_SHOWN = 100


class FarmError(Exception):
    """Base class: something went wrong that the farm can explain."""


class ConfigurationError(FarmError):
    """A setting, a catalog entry or an environment is unusable; the message says how to mend it."""


class NotFoundError(FarmError):
    """The named job, image or pipeline does not exist."""


class ConflictError(FarmError):
    """What is asked contradicts what was done before."""


class QuotaExceededError(FarmError):
    """A token may do no more of this now."""

    def __init__(self, message: str, quota: str, limit: int, remaining: int, reset_seconds: int) -> None:
        self.quota, self.limit, self.remaining, self.reset_seconds = quota, limit, remaining, reset_seconds
        super().__init__(message)


class StoreError(FarmError):
    """The object store did not do what it was asked; it may again later."""


class AddressRefusedError(FarmError):
    """An address that somebody named is not asked, or no longer listened to; the message goes on after its name."""


class UnreachableError(FarmError):
    """An address that somebody named did not answer; the message goes on after its name."""


class ObjectMissingError(FarmError):
    """The object store holds nothing under the key."""


class ObjectCorruptError(FarmError):
    """The stored bytes are not what was written: another SHA-256, or another format, shape or dtype."""


class CheckpointError(FarmError):
    """A checkpoint or adapter that cannot be had; the message says what to do."""


class RenderInterrupted(FarmError):
    """The batch must not be rendered any further: it was cancelled, or the lease was lost."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what was submitted.

    ``field`` is the name of the parameter, ``line`` the line of the file (counted from 1) where the input
    was a file, ``message`` says what is wrong and what to do about it. ``pointer`` is its place in a JSON body
    (RFC 6901), where that is known.
    """

    field: str
    message: str
    line: int | None = None
    pointer: str | None = None

    def __str__(self) -> str:
        where = f"line {self.line}, {self.field}" if self.line is not None else self.field
        return f"{where}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        """The problem as it stands in a problem document, which adds the pointer: only it knows the body."""
        return {"field": self.field, "line": self.line, "message": self.message}


class InvalidSubmissionError(FarmError):
    """What was submitted is refused as a whole; no row of it was written."""

    def __init__(self, problems: list[Problem], total: int | None = None) -> None:
        self.problems = problems[:MAX_PROBLEMS_SHOWN]
        self.total = len(problems) if total is None else total
        super().__init__(self.summary())

    def summary(self) -> str:
        """All shown problems, one a line, and how many more there are."""
        lines = [str(problem) for problem in self.problems]
        if self.total > len(lines):
            lines.append(f"... and {self.total - len(lines)} more")
        return "\n".join(lines)
