"""Children are kept running, stopped gently, and ended at once when asked twice."""

import os
import signal
import subprocess
import sys
import threading
import time
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


#: A child that looks for its keeper only once it is told to.
LATE = """
import sys, time
from pathlib import Path
from farm.parent import exit_with_keeper
print(__import__("os").getpid(), flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.05)
exit_with_keeper()
time.sleep(600)
"""


def test_a_child_ends_even_if_its_keeper_was_killed_before_it_looked(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    keep = (
        "import sys; from pathlib import Path; from farm.keeper import Child, Keeper; "
        "Keeper([Child('late', [sys.executable, '-c', sys.argv[1], sys.argv[2]], log=Path(sys.argv[3]))]).run()"
    )
    with subprocess.Popen([sys.executable, "-c", keep, LATE, str(go), str(log)]) as keeping:
        wait_until(lambda: log.exists() and log.read_text().strip() != "", "the child")
        keeping.kill()
    child = int(log.read_text())
    go.touch()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), "the child's end")


def _is_zombie(process_id: int) -> bool:
    # Where nobody reaps orphans they stay as entries of the table.
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        # It ended since.
        return True


def test_what_nobody_keeps_goes_on_without_who_started_it(tmp_path: Path) -> None:
    code = "from farm.parent import exit_with_keeper; exit_with_keeper(); import threading; print(threading.active_count())"
    environment = {name: value for name, value in os.environ.items() if name != "FARM_KEEPER"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_device_that_fails_again_and_again_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(keeper_module, "QUARANTINE_SECONDS", 3600.0)
    failing = f"print('up', flush=True); raise SystemExit({keeper_module.DEVICE_FAILED})"
    keeper, child, thread = start(failing, tmp_path / "log")
    wait_until(lambda: child.restarts == 3, "the third failure")
    assert child.start_after - time.monotonic() > 3000
    keeper.stop()
    thread.join(20)
    assert (tmp_path / "log").read_text().count("up") == 3
