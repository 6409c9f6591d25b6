"""Fault points: named places at which a test makes a process die, stand still or stumble.

They exist only where FARM_FAULTS names a directory. A fault is a file of that directory, with the name of its point;
the first process that reaches the point takes its first line away and does what is written there.
"""

import os
import signal
from functools import cache
from pathlib import Path

from farm.settings import get_settings

#: What is done here; anything else is handed to whoever asked.
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def reach(point: str) -> str | None:
    """Do what a test wants to happen at this point: ``kill`` the process, or ``stop`` it.

    Returns what else was wanted, such as ``out of memory``, and mostly None.
    """
    directory = _directory()
    if directory is None:
        return None
    taken = directory / f".{point}.{os.getpid()}"
    try:
        (directory / point).rename(taken)
    except FileNotFoundError:
        return None
    wanted, _, rest = taken.read_text(encoding="utf-8").partition("\n")
    if rest:
        taken.write_text(rest, encoding="utf-8")
        taken.rename(directory / point)
    else:
        taken.unlink()
    if wanted not in SIGNALS:
        return wanted
    os.kill(os.getpid(), SIGNALS[wanted])
    return None


@cache
def _directory() -> Path | None:
    return get_settings().faults
