"""Fault points: named places at which a test makes a process die, stand still or stumble.

They exist only where FARM_FAULTS names a directory. A fault is a file of that directory, with the name of its point;
the first process that reaches the point takes its first line away and does what is written there.
"""

import os
import signal
import time
from functools import cache
from pathlib import Path

from farm.settings import get_settings

#: What the farm itself does at a point; anything else is handed to whoever asked.
KILL, STOP, WAIT = "kill", "stop", "wait"


def reach(point: str) -> str | None:
    """Do what a test wants to happen at this point: ``kill`` the process, ``stop`` it, or ``wait 1.5`` (seconds).

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
    what, _, seconds = wanted.partition(" ")
    if what == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == STOP:
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == WAIT:
        time.sleep(float(seconds))
    else:
        return wanted
    return None


@cache
def _directory() -> Path | None:
    return get_settings().faults
