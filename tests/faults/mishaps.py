"""A farm to which things happen: faults in its processes, and what must be true of it afterwards."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from doors import Services
from running import RunningFarm, running_farm, wait_until
from sqlalchemy import select

import migrations
from farm.database import open_database
from farm.models import Batch
from farm.settings import Settings
from farm.storage import open_store
from producer.audit import Tally, audit

#: Two devices, so that one goes on while the other is started again.
WORKERS = ["--devices", "cpu,cpu"]
#: A farm that soon gives up what it hears nothing of. What fails here fails through no fault of the pictures.
IMPATIENT = {
    "lease_seconds": 3,
    "heartbeat_seconds": 0.3,
    "lost_message_seconds": 1,
    "max_failures": 20,
    "s3_timeout_seconds": 2,
}
#: Two batches, refined.
FEW: dict[str, Any] = {"steps": 6, "size": "64x64", "seed": 1, "batch_size": 2, "refiner_split": 0.5}
#: Many steps of a tiny picture: long enough to be caught in the middle.
SLOW: dict[str, Any] = {**FEW, "steps": 120, "size": "128x128"}


@contextmanager
def farm_of_faults(
    services: Services, logs: Path, models_directory: Path, *workers: list[str], **changes: Any
) -> Iterator[RunningFarm]:
    """A farm on services of its own, whose processes do what files in ``faults`` say."""
    faults = logs / "faults"
    faults.mkdir()
    settings = Settings(**services.settings(models_directory) | IMPATIENT | {"faults": faults} | changes)
    engine = open_database(settings)
    migrations.upgrade(engine)
    engine.dispose()
    with running_farm(settings, logs, *(workers or (WORKERS,))) as farm:
        wait_until(lambda: len(farm.workers()) >= 2 or workers, "both devices")
        yield farm


def arm(farm: RunningFarm, point: str, what: str = "kill", *then: str) -> None:
    """Have the first process that reaches the point do this, and the next ones the next."""
    assert farm.settings.faults is not None
    waiting = farm.settings.faults / f"{point}.new"
    waiting.write_text("\n".join((what, *then)))
    waiting.rename(farm.settings.faults / point)


def both_workers(farm: RunningFarm) -> set[str]:
    """The ids of the farm's two workers, once both live."""
    return wait_until(lambda: ids if len(ids := {one["id"] for one in farm.workers()}) == 2 else set(), "both workers")


def times_sent(farm: RunningFarm, job_id: int) -> dict[int, int]:
    """How often each batch of a job was sent, but for what had to be sent again because a slow worker lost its lease.

    Fails if a batch failed in any other way.
    """
    engine = open_database(farm.settings)
    with engine.connect() as connection:
        columns = Batch.id, Batch.attempt, Batch.failures, Batch.error
        rows = connection.execute(select(*columns).where(Batch.job_id == job_id)).all()
    engine.dispose()
    assert all("stopped answering" in row.error for row in rows if row.failures), rows
    return {row.id: row.attempt - row.failures for row in rows}


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Those of a process, which may end meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children()
    return []


def has_struck(farm: RunningFarm, point: str) -> bool:
    """Whether somebody has reached it."""
    assert farm.settings.faults is not None
    return not (farm.settings.faults / point).exists()


def is_stopped(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_STOPPED
    return False


def stopped_processes(farm: RunningFarm) -> list[psutil.Process]:
    """Processes of the farm that stand still."""
    found = []
    for process in [one for one in farm.processes if one.poll() is None]:
        # Any of them may end while it is looked at.
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            everybody = (parent, *parent.children(recursive=True))
            found += [one for one in everybody if is_stopped(one)]
    return found


def go_on(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGCONT)


def submit(farm: RunningFarm, images: int = 4, **fields: Any) -> int:
    return farm.client.submit([f"prompt {number}" for number in range(images)], **FEW | fields).id


def assert_all_there(farm: RunningFarm, *job_ids: int, seconds: float = 240) -> None:
    """Every image of these jobs ends as one finished picture."""
    for job_id in job_ids:
        job = farm.await_job(job_id, seconds)
        counts = job["images"]
        assert (job["state"], counts["completed"]) == ("completed", counts["total"]), farm.images(job_id)


def assert_nothing_lost(farm: RunningFarm, seconds: float = 60) -> None:
    """Rows, objects and hashes tell one story, and the store holds nothing that nobody knows of, however young."""
    engine = open_database(farm.settings)
    try:
        deadline = time.monotonic() + seconds
        while found := [*audit(engine, open_store(farm.settings), Tally(), hashes=True, young=timedelta(0))]:
            # What comes too late is removed by whoever wrote it, in a moment.
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
    finally:
        engine.dispose()
