"""A farm of several machines, one of which is cut off for a while: nothing is lost, and it comes back by itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from network import Host, network
from running import wait_until

FARM = (sys.executable, "-m", "farm.cli")
SERVICES = Path(__file__).parents[1] / "services_host.py"
LEASE_SECONDS = 6
WORKER = ("worker", "--device", "cpu", "--stage", "both")
IMAGES = 80
SLOW = ("--size", "256x256", "--steps", "12", "--set", "batch_size=1", "--seed", "1")
MAKE_TOKEN = """
from farm import people
from farm.database import open_database
from farm.settings import get_settings

engine = open_database(get_settings())
print(people.make_token(engine, people.local_user(engine).user_id, "tests"))
"""
#: Longer than a lease: what the host held is rendered elsewhere before it comes back. ``TEST_CUT_SECONDS`` has the
#: same done for as long as one likes.
CUT_SECONDS = float(os.environ.get("TEST_CUT_SECONDS", "15"))


@contextmanager
def program(host: Host, log: Path, environment: dict[str, str], *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program on a host for the time of the context."""
    with log.open("wb") as output:
        process = subprocess.Popen(host.command(*command), env=environment, stdout=output, stderr=output)
    try:
        yield process
    except BaseException:
        sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}\n")
        raise
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root")
def test_a_host_that_was_cut_off_loses_nothing_and_comes_back(tmp_path: Path, models_directory: Path) -> None:
    with ExitStack() as stack:
        services, head, *workers = stack.enter_context(network("services", "head", "first", "second"))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        stack.enter_context(
            program(
                services,
                tmp_path / "services.log",
                environment,
                sys.executable,
                str(SERVICES),
                services.address,
                str(tmp_path),
            )
        )
        known = tmp_path / "services.json"
        wait_until(known.exists, "the services")
        environment |= {f"FARM_{name.upper()}": value for name, value in json.loads(known.read_text()).items()}
        environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        environment |= {
            "FARM_PIPELINE": "tiny",
            "FARM_MODELS": str(models_directory),
            "FARM_LEASE_SECONDS": str(LEASE_SECONDS),
            "FARM_HEARTBEAT_SECONDS": "1",
            "FARM_LOST_MESSAGE_SECONDS": "3",
            "FARM_PORT": "8000",
            "FARM_URL": "http://127.0.0.1:8000",
        }

        head.run(*FARM, "migrate", environment=environment)
        environment["FARM_TOKEN"] = head.run(sys.executable, "-c", MAKE_TOKEN, environment=environment).strip()
        for name in ("producer", "dashboard"):
            stack.enter_context(program(head, tmp_path / f"{name}.log", environment, *FARM, name))
        commands = [
            stack.enter_context(program(host, tmp_path / f"worker{number}.log", environment, *FARM, *WORKER))
            for number, host in enumerate(workers)
        ]

        def farm(*arguments: str) -> Any:
            return json.loads(head.run(*FARM, *arguments, "--json", environment=environment))

        def alive() -> dict[int, dict[str, Any]]:
            """What lives, by the process id."""
            return {worker["process_id"]: worker for worker in farm("workers") if worker["alive"]}

        def done(job_id: int) -> int:
            return farm("show", str(job_id))["images"]["completed"]

        def answers() -> bool:
            command = head.command(*FARM, "whoami")
            return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

        wait_until(answers, "the dashboard")
        wait_until(lambda: len(alive()) == 2, "both workers")
        job_id = farm("submit", "--prompt", "a fox", "--images-per-prompt", str(IMAGES), *SLOW)["id"]
        wait_until(lambda: all(worker["batches"] for worker in alive().values()), "work on both")

        (cut_off,) = (child.pid for child in psutil.Process(commands[0].pid).children())
        cut_at = time.monotonic()
        workers[0].pull_cable()
        wait_until(lambda: cut_off not in alive(), "the farm to give it up")
        before = done(job_id)
        wait_until(lambda: done(job_id) > before + 1, "the other to go on")
        wait_until(lambda: time.monotonic() > cut_at + CUT_SECONDS, "the end of the cut", CUT_SECONDS + 1)
        workers[0].plug_in()

        wait_until(lambda: cut_off in alive(), "it to come back")
        ended = wait_until(lambda: (job := farm("show", str(job_id)))["finished_at"] and job, "the end of the job", 300)
        assert (ended["state"], ended["images"]["completed"], ended["images"]["failed"]) == ("completed", IMAGES, 0)
        # It takes its share again, with the same process.
        rendered = wait_until(lambda: alive().get(cut_off), "it to be alive")["images_completed"]
        farm("submit", "--prompt", "a hen", "--images-per-prompt", "12", *SLOW)
        wait_until(
            lambda: alive().get(cut_off, {"images_completed": 0})["images_completed"] > rendered,
            "pictures of the one that was cut off",
        )
