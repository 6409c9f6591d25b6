"""Progress for whoever waits: a bar in a terminal, a card or a bar that changes in place in a notebook, or nothing."""

import sys
from contextlib import AbstractContextManager
from html import escape
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from typing_extensions import override

from producer.client.html import bar

if TYPE_CHECKING:
    from rich.progress import Progress


class Meter(Protocol):
    """Shows how much is done."""

    wants_card: bool
    """Whether it can show HTML."""

    def show(self, done: float, total: float, card: str | None = None) -> None:
        """So much is done of so much; ``card`` is HTML that tells more."""


def meter(progress: bool | None, label: str) -> AbstractContextManager[Meter]:
    """What shows the progress; None shows it in notebooks only."""
    if progress is False or (progress is None and not in_notebook()):
        return _NoMeter()
    return NotebookMeter(label) if in_notebook() else _TerminalMeter(label)


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, which can show HTML."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"


class _NoMeter(AbstractContextManager["_NoMeter"], Meter):
    wants_card = False

    @override
    def show(self, done: float, total: float, card: str | None = None) -> None:
        pass

    @override
    def __exit__(self, *_: object) -> None:
        pass


class _TerminalMeter(AbstractContextManager["_TerminalMeter"], Meter):
    wants_card = False

    def __init__(self, label: str) -> None:
        self._bar = terminal_bar()
        self._task = self._bar.add_task(label, total=None)

    @override
    def __enter__(self) -> Self:
        self._bar.start()
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    @override
    def show(self, done: float, total: float, card: str | None = None) -> None:
        self._bar.update(self._task, completed=done, total=total)


class NotebookMeter(AbstractContextManager["NotebookMeter"], Meter):
    """Shows the progress in one place of a cell's output."""

    wants_card = True

    def __init__(self, label: str, place: "Place | None" = None) -> None:
        self._label = label
        self._place = place or Place()

    @override
    def __exit__(self, *_: object) -> None:
        pass

    @override
    def show(self, done: float, total: float, card: str | None = None) -> None:
        text = f"{self._label}: {done:g} of {total:g}"
        html = card or f"<div>{escape(text)}{bar(done, total, escape(self._label))}</div>"
        self._place.show(html, text)


class Place:
    """A place in the output of a notebook's cell, whose content can be replaced."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = ""

    def show(self, html: str, text: str) -> None:
        """Show this HTML, or this text where there is none."""
        if html == self._shown:
            return
        self._shown = html
        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


def terminal_bar() -> "Progress":
    """A progress bar on standard error, so that standard output stays clean for results."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description:<11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
