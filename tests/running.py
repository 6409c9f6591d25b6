"""A running farm: its parts as separate processes, as an operator starts them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import SecretStr

from farm import people
from farm.database import open_database
from farm.embedded import free_port
from farm.parent import KEEPER_VARIABLE
from farm.settings import Settings
from producer import Farm

Value = TypeVar("Value")

WAIT_SECONDS = 240


def wait_until(condition: Callable[[], Value], what: str, seconds: float = WAIT_SECONDS) -> Value:
    """The condition's first true value; fails loudly when it does not come."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)
    return value


class RunningFarm:
    """Parts of a farm on one set of settings."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings = settings
        self.logs = logs
        self.code: Path | None = None
        """Where the project lies that is started; by default this one."""
        self.url = f"http://127.0.0.1:{free_port()}"
        self.environment = os.environ | {
            f"FARM_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in settings.model_dump(exclude_unset=True).items()
            if value is not None
        }
        self.environment["FARM_PORT"] = self.url.rpartition(":")[2]
        self.environment["FARM_URL"] = self.url
        self.processes: list[subprocess.Popen[bytes]] = []
        self.token = self.make_token()
        self.environment["FARM_TOKEN"] = self.token
        self.client = Farm(self.url, self.token)

    def make_token(self) -> str:
        """An API token of an administrator."""
        engine = open_database(self.settings)
        try:
            return people.make_token(engine, people.local_user(engine).user_id, "tests")
        finally:
            engine.dispose()

    def login_link(self) -> str:
        """A link that logs a browser in."""
        engine = open_database(self.settings)
        try:
            return f"{self.url}/enter/{people.make_link(engine, people.local_user(engine).user_id)}"
        finally:
            engine.dispose()

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Run ``farm ARGUMENTS`` in the background."""
        with (self.logs / f"{len(self.processes)}-{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "farm.cli", *arguments],
                # It ends with the tests, however these end.
                env=self.environment | {KEEPER_VARIABLE: str(os.getpid())},
                cwd=self.code,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def command(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run ``farm ARGUMENTS`` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "farm.cli", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    def await_dashboard(self) -> None:
        def answers() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz").is_success
            except httpx.TransportError:
                return False

        wait_until(answers, "the dashboard")

    def workers(self) -> list[dict]:
        return [worker for worker in self.client.workers() if worker["alive"]]

    def job(self, job_id: int) -> dict:
        """What the API tells of a job."""
        return self.client.job(job_id).data

    def images(self, job_id: int) -> list[dict]:
        """What the API tells of a job's images."""
        return [image.data for image in self.client.job(job_id).images()]

    def await_job(self, job_id: int, seconds: float = WAIT_SECONDS) -> dict:
        def ended() -> dict | None:
            job = self.job(job_id)
            return job if job["finished_at"] else None

        return wait_until(ended, f"the end of job {job_id}", seconds)

    def stop(self) -> None:
        self.client.close()
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running_farm(settings: Settings, logs: Path, *workers: list[str]) -> Iterator[RunningFarm]:
    """A farm with producer, dashboard and workers (one ``farm worker`` per list of options), for the time being."""
    farm = RunningFarm(settings, logs)
    try:
        farm.start("producer")
        farm.start("dashboard")
        for options in workers:
            # Unless a test is about it, no worker comes to serve something else.
            farm.start("worker", *([] if "--stage" in options else ["--stage", "both"]), *options)
        farm.await_dashboard()
        wait_until(lambda: len(farm.workers()) >= len(workers), "the workers")
        yield farm
    except BaseException:
        for log in sorted(logs.glob("*.log")):
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}\n")
        raise
    finally:
        farm.stop()
