"""Disks that run full, and clocks that are wrong."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from doors import own_services
from mishaps import SLOW, assert_all_there, assert_nothing_lost, farm_of_faults, submit
from running import wait_until

from farm.errors import FarmError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="small disks are mounted by root")


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """A disk of so many MiB."""
    with tempfile.TemporaryDirectory(prefix="farm-disk-") as name:
        directory = Path(name)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "tmpfs", directory], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def test_the_disk_of_the_pictures_is_full(tmp_path: Path, models_directory: Path) -> None:
    with (
        small_disk(64) as disk,
        own_services() as services,
        farm_of_faults(services, tmp_path, models_directory, store_url=f"file://{disk}/objects") as farm,
    ):
        assert_all_there(farm, submit(farm, 2))
        filler = fill(disk)
        job_id = submit(farm, 6)
        log = tmp_path / "2-worker.log"
        wait_until(lambda: log.read_text().count("handed back: The store failed") >= 2, "the store to be found full")
        assert farm.job(job_id)["images"]["failed"] == 0
        filler.unlink()
        assert_all_there(farm, job_id)
        assert_nothing_lost(farm)


def test_the_disk_of_the_database_is_full(tmp_path: Path, models_directory: Path) -> None:
    with (
        small_disk(256) as disk,
        own_services(postgres_on=disk) as services,
        farm_of_faults(services, tmp_path, models_directory) as farm,
    ):
        running = submit(farm, 8, **SLOW | {"steps": 30})
        filler = fill(disk)
        accepted = []
        refusals = 0
        # Each takes its room: in the end there is none, and whoever submits is told so.
        while not refusals and len(accepted) < 200:
            try:
                accepted.append(submit(farm, 400, steps=1, seed=len(accepted), priority=0))
            except (FarmError, httpx.HTTPError):
                refusals += 1
        assert refusals
        filler.unlink()
        farm.await_dashboard()
        for job_id in accepted:
            farm.client.job(job_id).cancel()
        assert_all_there(farm, running, submit(farm))
        # What was refused left nothing, what was accepted all of it.
        assert {job.id for job in farm.client.jobs()} >= {running, *accepted}
        assert_nothing_lost(farm)


def test_the_clock_of_one_host_is_wrong_by_an_hour(tmp_path: Path, models_directory: Path) -> None:
    with (
        own_services() as services,
        farm_of_faults(services, tmp_path, models_directory, ["--devices", "cpu"]) as farm,
    ):
        environment = dict(farm.environment)
        for shift in ("+1h", "-1h"):
            farm.environment |= {
                "LD_PRELOAD": faketime_library(),
                "FAKETIME": shift,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            farm.start("worker", "--devices", "cpu", "--stage", "both")
            farm.environment = dict(environment)
        wait_until(lambda: len(farm.workers()) == 3, "workers of three times")
        job_id = submit(farm, 24, **SLOW | {"steps": 20})
        assert_all_there(farm, job_id)
        assert {worker["id"] for worker in farm.workers() if worker["images_completed"]} == {
            worker["id"] for worker in farm.workers()
        }, "one of them rendered nothing"
        assert all(worker["heartbeat_age_seconds"] < 60 for worker in farm.workers())
        assert_nothing_lost(farm)


def faketime_library() -> str:
    """Debian's libfaketime."""
    found = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")]
    assert found, "install faketime"
    return str(found[0])
