"""Parts of a long measurement: each may fail without taking the others along.

What computes does so in a process of its own: it leaves behind neither memory nor settings of torch, and an error that
ends CUDA for its process ends it for no other part.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from rich.console import Console

from farm.errors import ConfigurationError

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")
Result = dict[str, Any]

#: What takes longer hangs.
PART_SECONDS = 1800.0
#: What has nothing more to do ends within this time.
END_SECONDS = 20.0
#: What a process needs that computes.
_HEAVY = ["worker.pipelines", "worker.stages"]


class PartFailedError(Exception):
    """A part came to nothing; the message says why."""


def tell(what: str) -> None:
    """Say how far it is, where it is in nobody's way."""
    Console(stderr=True).print(what, style="dim", markup=False, highlight=False)


def reason(error: BaseException) -> str:
    """An error in one line; of several at once the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, PartFailedError | SystemExit):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def attempt(name: str, do: Callable[[], Result]) -> Result:
    """What the part gives, or ``{"failed": reason}``."""
    tell(name)
    try:
        return do()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the other parts are still to come
        tell(f"{name} failed: {reason(error)}")
        return {"failed": reason(error)}


def isolated(
    cuda: bool, do: Callable[Parameters, Value], *arguments: Parameters.args, **more: Parameters.kwargs
) -> Value:
    """What ``do`` gives, in a process that ends with it. Raises PartFailedError."""
    # CUDA forbids to fork; without it the libraries are imported once, and forked.
    context = multiprocessing.get_context("spawn" if cuda else "forkserver")
    context.set_forkserver_preload(_HEAVY)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, do, arguments, more))  # type: ignore[attr-defined]
    process.start()
    sender.close()
    try:
        if not receiver.poll(PART_SECONDS):
            raise PartFailedError(f"no end after {PART_SECONDS:.0f} seconds")
        went_well, value = receiver.recv()
    except EOFError:
        process.join()
        raise PartFailedError(f"its process ended with {process.exitcode}") from None
    else:
        # What it made for itself, it tidies up.
        process.join(END_SECONDS)
    finally:
        process.kill()
        process.join()
    if not went_well:
        raise PartFailedError(value)
    return value  # type: ignore[no-any-return]


def _send(sender: Connection, do: Callable[..., object], arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    try:
        sender.send((True, do(*arguments, **more)))
    except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
        if not isinstance(error, ConfigurationError | SystemExit):
            traceback.print_exc()
        sender.send((False, reason(error)))
