"""A farm to measure: `farm up` on a directory of its own, with one worker."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from farm.embedded import free_port
from farm.errors import FarmError
from producer import Farm

#: A GPU's worker loads 14 GB first.
START_SECONDS = 300
#: What it renders is finished first.
STOP_SECONDS = 120


@contextmanager
def farm_up(
    data: Path, devices: str = "cpu", pipeline: str = "tiny", stage: str = "both", **environment: str
) -> Iterator[str]:
    """The address of a farm whose worker is ready; it ends with the context."""
    url = f"http://127.0.0.1:{free_port()}"
    options = [
        "--data",
        str(data),
        "--port",
        url.rpartition(":")[2],
        "--devices",
        devices,
        "--pipeline",
        pipeline,
        "--stage",
        stage,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "farm.cli", "up", *options], stdout=subprocess.DEVNULL, env=os.environ | environment
    )
    try:
        _await_workers(process, url, len(devices.split(",")))
        yield url
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_workers(process: "subprocess.Popen[bytes]", url: str, count: int) -> None:
    # What is not there yet tells nobody when it comes.
    deadline, reason = time.monotonic() + START_SECONDS, "not all of its workers came"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                with Farm(url) as farm:
                    if sum(worker["alive"] for worker in farm.workers()) >= count:
                        return
        except (httpx.TransportError, FarmError) as error:
            # Not up yet, or its token is not recorded yet.
            reason = str(error)
        time.sleep(0.2)
    raise SystemExit(f"The farm did not start: {reason}")
