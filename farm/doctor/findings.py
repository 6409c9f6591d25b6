"""What a check found."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """The farm works, or would; somebody should look at it all the same."""
    ERROR = "error"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    message: str
    remedy: str | None = None
    """What to do about it."""


def ok(check: str, message: str) -> Finding:
    """Nothing to do here."""
    return Finding(check, Level.OK, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Somebody should look at this."""
    return Finding(check, Level.WARNING, message, remedy)


def error(check: str, message: str, remedy: str) -> Finding:
    """This does not work."""
    return Finding(check, Level.ERROR, message, remedy)


def verdict(findings: Collection[Finding]) -> Level:
    """The worst of all."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.ERROR, Level.WARNING) if level in levels), Level.OK)


def first_line(reason: BaseException) -> str:
    """What libraries say at length, in its first line."""
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]


def size(number: float) -> str:
    """Bytes for people."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
