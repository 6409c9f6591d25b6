"""docs/deployment.md promises that a machine joins by one command and three settings, and leaves without loss."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import RunningFarm, wait_until
from sqlalchemy import select
from sqlalchemy.orm import Session

from farm.database import open_database
from farm.models import Batch

ROOT = Path(__file__).parents[2]
JOB = {"steps": 4, "size": "64x64", "batch_size": 1, "seed": 1}


@contextmanager
def second_machine(farm: RunningFarm, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """``farm worker`` where nothing is known but the three settings, and that this machine has no GPU."""
    settings = farm.settings
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "FARM_DATABASE_URL": settings.database_url or "",
        "FARM_BROKER_URL": settings.broker_url or "",
        "FARM_STORE_URL": settings.effective_store_url,
    }
    with (home / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "farm.cli", "worker", "--device", "cpu", "--pipeline", "tiny"]
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wanted(farm: RunningFarm) -> int:
    return farm.client.request("GET", "/api/v1/autoscaling").json()["devices"]


def test_a_machine_joins_renders_and_leaves(shared_farm: RunningFarm, tmp_path: Path) -> None:
    farm = shared_farm
    (first,) = [worker["id"] for worker in farm.workers()]
    farm.client.request("POST", f"/api/v1/workers/{first}/drain")
    try:
        wait_until(lambda: farm.workers()[0]["state"] == "drained", "the first worker to let others do it")
        job = farm.client.submit(["a tower", "a bridge"], **JOB)
        assert wanted(farm) > 0
        with second_machine(farm, tmp_path) as process:
            assert farm.await_job(job.id)["images"]["completed"] == 2
            (second,) = {worker["id"] for worker in farm.workers()} - {first}
            assert wanted(farm) == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(240) == 0, (tmp_path / "worker.log").read_text(encoding="utf-8")
        assert {worker["id"] for worker in farm.workers()} == {first}
    finally:
        farm.client.request("POST", f"/api/v1/workers/{first}/resume")
    engine = open_database(farm.settings)
    with Session(engine) as session:
        assert set(session.scalars(select(Batch.worker_id).where(Batch.job_id == job.id))) == {second}
    engine.dispose()
