"""What all commands have in common: how they print, how they fail, and options that mean the same everywhere."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time, timedelta
from enum import IntEnum
from typing import Annotated, Literal

import typer
from rich.console import Console

from farm.errors import FarmError, InvalidSubmissionError
from farm.spec import MAX_KEEP_DAYS
from producer.client.errors import FarmUnreachableError, NotAllowedError, NotLoggedInError
from producer.client.sync import Farm


class Exit(IntEnum):
    """Exit statuses of all commands, as docs/cli.md lists them."""

    DONE = 0
    FAILED = 1
    """The job ended with failed images or was cancelled, or whatever has no status of its own."""
    REFUSED = 2
    """Input that was refused, and nothing was submitted; also a wrong command line."""
    UNREACHABLE = 3
    """No farm answers."""
    NOT_ALLOWED = 4
    """Not logged in, or not allowed."""
    INTERRUPTED = 130
    """Ctrl-C: a job that was waited for goes on."""


DEADLINE_HELP = "When it should be done: 2026-12-24T18:00, or 18:00; it is shown with a forecast."
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}")

output = Console()
messages = Console(stderr=True)


def complete_jobs(incomplete: str) -> list[tuple[str, str]]:
    """The newest jobs, for the shell; none if no farm answers at once."""
    try:
        with Farm(patience_seconds=0) as farm:
            found = farm.jobs(50)
    except FarmError:
        return []
    return [(str(job.id), f"{job.state}  {job.name}") for job in found if str(job.id).startswith(incomplete)]


def complete_pipelines(incomplete: str) -> list[str]:
    """The catalog's pipelines, for the shell."""
    try:
        with Farm(patience_seconds=0) as farm:
            names = [entry["name"] for entry in farm.pipelines()]
    except FarmError:
        return []
    return [name for name in names if name.startswith(incomplete)]


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
JobArgument = Annotated[
    int,
    typer.Argument(metavar="JOB", help="Number of the job, as `farm jobs` lists it.", autocompletion=complete_jobs),
]
JobsArgument = Annotated[
    list[int], typer.Argument(metavar="JOB...", help="Numbers of jobs.", autocompletion=complete_jobs)
]


def print_json(document: object, *, only_if: bool = True) -> None:
    """One JSON document on standard output."""
    if only_if:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


def say(text: str) -> None:
    """A line on standard output, as it is."""
    output.print(text, markup=False, highlight=False, soft_wrap=True)


def warn(text: str, style: str | None = None) -> None:
    """A line on standard error, as it is."""
    messages.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def read_days(text: str | None) -> int | Literal["none"] | None:
    """A number of days, or none, as an option gives them."""
    if text is None:
        return None
    if text == "none":
        return "none"
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_KEEP_DAYS):
        raise typer.BadParameter(f"{text!r} is neither a number of days from 1 to {MAX_KEEP_DAYS:,} nor none")
    return int(text)


def plain(text: str) -> str:
    """Text of strangers for a terminal: no control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def moment(text: str | None) -> str:
    """A time of the API for people, in the time of this machine."""
    return "" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def priority_of(text: str | None) -> int | str | None:
    """A priority as somebody wrote it: a number, or the name of a class."""
    return int(text) if text is not None and text.strip().isdigit() else text


def moment_of(text: str | None) -> str | None:
    """What somebody wrote as a time, as the API takes it: without a zone it is this machine's, without a day the next
    such time.
    """
    if text is None or text == "none":
        return text
    now = datetime.now().astimezone()
    try:
        said = (
            datetime.combine(now.date(), time.fromisoformat(text), now.tzinfo)
            if _TIME_OF_DAY.fullmatch(text)
            else datetime.fromisoformat(text).astimezone()
        )
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time; write 2026-12-24T18:00, or 18:00", param_hint="--deadline"
        ) from None
    if _TIME_OF_DAY.fullmatch(text) and said < now:
        said += timedelta(days=1)
    return said.isoformat()


def duration(seconds: float | None) -> str:
    """Seconds for people: ``2 h 5 min``."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def friendly_errors(filename: str | None = None, nothing: str = "Nothing was submitted.") -> Iterator[None]:
    """Print the farm's errors for a person, and exit with the status that ``Exit`` gives them.

    ``nothing`` says what did not happen when input was refused.
    """
    try:
        yield
    except InvalidSubmissionError as error:
        for problem in error.problems:
            where = f"{filename}: " if filename and problem.line is not None else ""
            warn(f"error: {where}{problem}", "red")
        if error.total > len(error.problems):
            warn(f"... and {error.total - len(error.problems)} more")
        warn(nothing)
        raise typer.Exit(Exit.REFUSED) from None
    except FarmError as error:
        warn(f"error: {error}", "red")
        raise typer.Exit(_status(error)) from None


def _status(error: FarmError) -> Exit:
    if isinstance(error, FarmUnreachableError):
        return Exit.UNREACHABLE
    return Exit.NOT_ALLOWED if isinstance(error, NotAllowedError | NotLoggedInError) else Exit.FAILED
