"""How a worker comes to serve something else: it ends what it holds, and its process is executed anew.

Executed, not only loaded anew: all that the old pipeline held on the device is free then, whatever held it. The process
keeps its number, so its supervisor keeps it.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Collection, Sequence
from typing import Any

from celery.platforms import EX_OK
from celery.signals import worker_shutting_down
from celery.worker import state

from farm.claims import Wanted
from farm.states import Stage

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Change:
    """What this worker shall serve from now on, once it was told."""

    def __init__(self, pipeline: str, stages: Collection[Stage]) -> None:
        self._serves = Wanted(pipeline, tuple(sorted(stages)))
        self._wanted: Wanted | None = None
        self._stopped = threading.Event()
        worker_shutting_down.connect(self._on_stop, weak=False)

    def follow(self, wanted: Wanted | None) -> bool:
        """Whether the worker ends to serve something else; told at every heartbeat, from any thread."""
        if wanted is not None and Wanted(wanted.pipeline, tuple(sorted(wanted.stages))) != self._serves:
            if self._wanted is None:
                logger.info("from now on %s of %s; ending what is held", " and ".join(wanted.stages), wanted.pipeline)
            self._wanted = wanted
            # As after a signal: Celery finishes what it does and hands back what it has not begun.
            state.should_stop = EX_OK
        return self._wanted is not None

    def execute(self, arguments: Sequence[str]) -> None:
        """In place of this process, one that serves what is wanted; returns if nothing is, or it was told to stop."""
        # A signal that comes from here on waits for the new process, which it ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if self._wanted is None or self._stopped.is_set():
            return
        options = [
            *("--pipeline", self._wanted.pipeline),
            *("--stages", ",".join(self._wanted.stages)),
            *arguments,
        ]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "worker.process", *options])  # noqa: S606 - our own

    def _on_stop(self, **_: Any) -> None:
        self._stopped.set()


def listen_to_signals() -> None:
    """Undo what ``execute`` did to signals before this process was."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
