"""Command lines of ``farm``, as they stand in files and pages: read by the real command line, and not run."""

from collections.abc import Sequence
from typing import Any

import typer

from farm.cli import app


def check_command(words: Sequence[str]) -> None:
    """Fail unless ``farm`` would take them."""
    program, *rest = words
    assert program == "farm"
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        part, *rest = rest
        assert part in command.commands, words
        command = command.commands[part]
    command.make_context(part, rest)
