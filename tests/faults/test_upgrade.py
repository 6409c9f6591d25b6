"""An upgrade while the farm works: the newest migration runs under the workers and producers of the version before it."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from doors import own_services
from mishaps import IMPATIENT, SLOW, WORKERS, assert_all_there, assert_nothing_lost, submit
from running import RunningFarm, wait_until

import migrations
from farm.database import open_database
from farm.settings import Settings

ROOT = Path(__file__).parents[2]
NEWEST = max((ROOT / "migrations" / "versions").glob("[0-9]*.py"))


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout


def version_before(directory: Path) -> Path:
    """The project as it was before its newest migration."""
    added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(NEWEST)).decode().strip()
    before = f"{added}^" if added else "HEAD"
    if subprocess.run(["git", "-C", str(ROOT), "cat-file", "-e", before], capture_output=True, check=False).returncode:
        pytest.skip("this clone has no history: fetch it with git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", before))) as archive:
        archive.extractall(directory, filter="data")
    assert not (directory / NEWEST.relative_to(ROOT)).exists()
    return directory


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="without the history there is no version before")
def test_an_upgrade_under_way_loses_nothing(tmp_path: Path, models_directory: Path) -> None:
    with own_services() as services:
        settings = Settings(**services.settings(models_directory) | IMPATIENT)
        old_code = version_before(tmp_path / "old")
        (tmp_path / "logs").mkdir()
        migrate = [sys.executable, "-m", "farm.cli", "migrate"]
        database = {"FARM_DATABASE_URL": str(settings.database_url)}
        subprocess.run(migrate, env={**os.environ, **database}, cwd=old_code, check=True)
        farm = RunningFarm(settings, tmp_path / "logs")
        try:
            farm.code = old_code
            old = [farm.start(part, *rest) for part, *rest in (["producer"], ["dashboard"], ["worker", *WORKERS])]
            farm.await_dashboard()
            wait_until(lambda: len(farm.workers()) == 2, "the workers of before")
            first = submit(farm, 80, **SLOW | {"steps": 20})
            wait_until(lambda: farm.job(first)["images"]["completed"], "its first pictures")

            engine = open_database(settings)
            migrations.upgrade(engine)
            engine.dispose()
            assert not farm.job(first)["finished_at"]
            farm.code = None
            # One after the other, as an operator does it; those of before end what they hold.
            for part, arguments in (("producer", []), ("worker", WORKERS)):
                farm.start(part, *arguments)
            second = submit(farm, 40, **SLOW | {"steps": 20})
            wait_until(lambda: len(farm.workers()) == 4, "workers of both versions")
            for process in (old[0], old[2]):
                process.terminate()
            old[1].terminate()
            old[1].wait(240)
            farm.start("dashboard")
            farm.await_dashboard()
            third = submit(farm)
            assert_all_there(farm, first, second, third)
            assert_nothing_lost(farm)
        finally:
            farm.stop()
