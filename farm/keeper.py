"""Keeps child processes running: what dies is started again, with a longer pause each time.

Children are executed, never forked from a process that knows CUDA. Stopping is in two steps: SIGTERM, which lets
each child finish what it holds; asked a second time, it ends them at once.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from farm.parent import KEEPER_VARIABLE

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
#: A process that lived so long had started well: the pause after its death is a short one again.
HEALTHY_SECONDS = 60.0
#: How long a child that was signalled a second time gets before it is killed.
GRACE_SECONDS = 2.0
#: Environment variable that tells a child how often it was started again. It is no setting: nobody else sets it, and
#: ``farm.settings`` passes over names that it does not know.
RESTARTS_VARIABLE = "FARM_RESTARTS"
#: Status of a child that ended because its device failed (EX_SOFTWARE of sysexits.h).
DEVICE_FAILED = 70
#: A device that failed so often within an hour rests for a while: it would only spoil what others could render.
QUARANTINE_FAILURES = 3
QUARANTINE_WINDOW_SECONDS = 3600.0
QUARANTINE_SECONDS = 600.0


@dataclass
class Child:
    """A process to keep running. ``log`` is where its output goes; by default it shares ours."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    pause_seconds: float = field(default=FIRST_PAUSE_SECONDS, init=False)
    started_at: float = field(default=0.0, init=False)
    start_after: float = field(default=0.0, init=False)
    restarts: int = field(default=0, init=False)
    device_failures: list[float] = field(default_factory=list, init=False)
    """When its device failed lately."""

    def start(self) -> None:
        """Execute the command in a session of its own: Ctrl-C in a terminal reaches the keeper alone."""
        ours = {RESTARTS_VARIABLE: str(self.restarts), KEEPER_VARIABLE: str(os.getpid())}
        environment = {**os.environ, **self.environment, **ours}
        self.started_at = time.monotonic()
        if self.log is None:
            self.process = subprocess.Popen(self.command, env=environment, start_new_session=True)
            return
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None


class Keeper:
    """Keeps children alive until told to stop, then waits for their ends."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = children
        self._drain = threading.Event()
        self._kill = threading.Event()

    def stop(self) -> None:
        """Let the children finish what they hold; called a second time, end them at once."""
        if self._drain.is_set():
            logger.warning("ending at once; what was being rendered goes back in line")
            self._kill.set()
        else:
            logger.info("stopping: batches that are being rendered are finished; signal again to end at once")
            self._drain.set()

    def run(self) -> None:
        """Keep the children running until stopped; returns when all have ended."""
        while not self._drain.is_set():
            for child in self.children:
                self._tend(child)
            self._drain.wait(POLL_SECONDS)
        self._signal_all()
        while any(child.alive for child in self.children):
            if self._kill.wait(POLL_SECONDS):
                self._end_at_once()

    def _tend(self, child: Child) -> None:
        now = time.monotonic()
        if child.process is not None and (status := child.process.poll()) is not None:
            lived = now - child.started_at
            if lived > HEALTHY_SECONDS:
                child.pause_seconds = FIRST_PAUSE_SECONDS
            pause = child.pause_seconds
            if status == DEVICE_FAILED and _is_ill(child, now):
                pause = QUARANTINE_SECONDS
                logger.critical("the device of %s failed %d times within an hour", child.name, QUARANTINE_FAILURES)
            logger.error("%s ended with status %s; starting it again in %.0f s", child.name, status, pause)
            child.process = None
            child.restarts += 1
            child.start_after = now + pause
            child.pause_seconds = min(child.pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        if child.process is None and now >= child.start_after:
            child.start()

    def _signal_all(self) -> None:
        for child in self.children:
            if child.process is not None and child.alive:
                child.process.terminate()

    def _end_at_once(self) -> None:
        self._signal_all()
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self.children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _is_ill(child: Child, now: float) -> bool:
    """Whether its device, which has just failed, has failed so often that it must rest. It begins anew after that."""
    lately = [at for at in child.device_failures if now - at < QUARANTINE_WINDOW_SECONDS]
    child.device_failures = [*lately, now]
    if len(child.device_failures) < QUARANTINE_FAILURES:
        return False
    child.device_failures.clear()
    return True


@contextmanager
def stop_on_signal(stop: "threading.Event | Keeper") -> Iterator[None]:
    """For the time of the context, SIGTERM and Ctrl-C stop what is given."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.stop() if isinstance(stop, Keeper) else stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def exit_on_signal(before: Callable[[], None] | None = None) -> Iterator[None]:
    """For the time of the context, SIGTERM ends the process as Ctrl-C does, cleanly and without a traceback.

    ``before`` is called first.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if before is not None:
            before()
        raise SystemExit(0)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except SystemExit:
        logger.info("stopped")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
