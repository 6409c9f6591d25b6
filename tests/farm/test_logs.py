"""Lines of the log: what they are about stands in them, as text and as JSON."""

import json
import subprocess
import sys

PROGRAM = """
import logging, threading
from farm.logs import about, set_up_logging
from farm.settings import Settings
from worker.turns import Turns

set_up_logging(Settings(log_format={format!r}))
log = logging.getLogger("farm.test")
turns = Turns()
log.info("before")
with about(job=1, batch=2):
    with about(attempt=3):
        turns.submit(lambda: log.warning("on the %s", "device")).result()
    log.info("after")
log.info("end")
"""


def lines(kind: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{format!r}", repr(kind))], capture_output=True, text=True, check=True
    )
    return ran.stderr.splitlines()


def test_text_has_the_ids_at_the_end() -> None:
    before, device, after, end = lines("text")
    assert before.endswith("farm.test: before")
    assert "WARNING" in device
    assert device.endswith("farm.test: on the device [job=1 batch=2 attempt=3]")
    assert after.endswith("after [job=1 batch=2]")
    assert end.endswith("farm.test: end")


def test_json_has_them_as_fields() -> None:
    _, device, after, end = map(json.loads, lines("json"))
    ids = {"job": 1, "batch": 2, "attempt": 3}
    expected = {"level": "WARNING", "logger": "farm.test", "message": "on the device", **ids}
    assert {name: device[name] for name in expected} == expected
    assert device.keys() == {"time", "process", *expected}
    assert "attempt" not in after
    assert "job" not in end
