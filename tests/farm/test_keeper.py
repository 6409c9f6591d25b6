"""Children are kept running, stopped gently, and ended at once when asked twice."""

import signal
import sys
import threading
from pathlib import Path

import pytest
from running import wait_until

from farm import keeper as keeper_module
from farm.keeper import Child, Keeper

POLITE = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(0)); print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(keeper_module, "GRACE_SECONDS", 0.2)


def start(code: str, log: Path) -> tuple[Keeper, Child, threading.Thread]:
    child = Child("child", [sys.executable, "-c", code], log=log)
    child.pause_seconds = 0.05
    keeper = Keeper([child])
    thread = threading.Thread(target=keeper.run)
    thread.start()
    wait_until(lambda: log.exists() and "up" in log.read_text(), "the child")
    return keeper, child, thread


def test_what_dies_is_started_again_and_stops_gently(tmp_path: Path) -> None:
    log = tmp_path / "log"
    keeper, child, thread = start(POLITE, log)
    assert child.process is not None
    first = child.process.pid
    child.process.kill()
    wait_until(lambda: log.read_text().count("up") == 2, "the second life")
    assert child.process.pid != first
    keeper.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert child.process.returncode == 0


def test_a_second_stop_ends_even_the_stubborn(tmp_path: Path) -> None:
    keeper, child, thread = start(STUBBORN, tmp_path / "log")
    keeper.stop()
    thread.join(0.5)
    assert thread.is_alive()
    keeper.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_is_told_how_often_it_was_started_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tell = "import os; print('up', os.environ['FARM_RESTARTS'], flush=True);"
    keeper, child, thread = start(tell + POLITE.replace("print('up', flush=True);", ""), log)
    assert child.process is not None
    child.process.kill()
    wait_until(lambda: log.read_text().split("\n")[:2] == ["up 0", "up 1"], "the second life")
    keeper.stop()
    thread.join(20)
    assert child.restarts == 1
