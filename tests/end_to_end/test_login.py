"""`farm login`: a laptop that has nothing but the client, and a farm somewhere else."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Services, farm_settings
from running import RunningFarm

from farm import people
from farm.database import open_database
from farm.roles import Role
from producer.commands.terms import Exit

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def farm(services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    directory = tmp_path_factory.mktemp("login")
    with farm_settings(services, directory, models_directory) as settings:
        farm = RunningFarm(settings, directory)
        try:
            farm.start("dashboard")
            farm.await_dashboard()
            engine = open_database(settings)
            people.add_user(engine, "ana", Role.SUBMITTER, PASSWORD)
            engine.dispose()
            yield farm
        finally:
            farm.stop()


@pytest.fixture
def laptop(farm: RunningFarm, tmp_path: Path) -> "Laptop":
    return Laptop(farm.environment, tmp_path)


class Laptop:
    """Somebody's machine, which knows no farm."""

    def __init__(self, environment: dict[str, str], home: Path) -> None:
        self.record = home / "sdxl-farm" / "farm.json"
        self.environment = {name: value for name, value in environment.items() if not name.startswith("FARM_")}
        self.environment["XDG_STATE_HOME"] = str(home)

    def run(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "farm.cli", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def test_a_token_is_remembered_for_later_commands(farm: RunningFarm, laptop: Laptop) -> None:
    assert laptop.run("jobs", "--json").returncode == Exit.UNREACHABLE
    entered = laptop.run("login", farm.url + "/", "--token-stdin", stdin=farm.token + "\n")
    assert entered.returncode == 0, entered.stderr
    assert f"Logged in to {farm.url} as " in entered.stdout
    assert laptop.run("jobs", "--json").stdout.strip() == "[]"
    assert stat.S_IMODE(laptop.record.stat().st_mode) == 0o600
    assert farm.token not in entered.stdout + entered.stderr

    assert laptop.run("logout").returncode == 0
    assert farm.token not in laptop.record.read_text() if laptop.record.exists() else True
    assert laptop.run("jobs", "--json").returncode == Exit.UNREACHABLE


def test_a_password_makes_a_token_of_its_user(farm: RunningFarm, laptop: Laptop) -> None:
    entered = laptop.run("login", farm.url, "--name", "ana", "--password-stdin", "--json", stdin=PASSWORD)
    assert json.loads(entered.stdout) == {"url": farm.url, "name": "ana", "role": "submitter"}
    submitted = laptop.run("submit", "--prompt", "a fox", "--json")
    assert submitted.returncode == 0, submitted.stderr
    assert farm.job(json.loads(submitted.stdout)["id"])["owner"] == "ana"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("--token-stdin",), "farm_wrong", "does not know this token"),
        (("--name", "ana", "--password-stdin"), "wrong password", "do not match"),
    ],
)
def test_what_is_wrong_is_not_remembered(
    farm: RunningFarm, laptop: Laptop, arguments: tuple[str, ...], stdin: str, message: str
) -> None:
    refused = laptop.run("login", farm.url, *arguments, stdin=stdin)
    assert refused.returncode == Exit.NOT_ALLOWED
    assert message in refused.stderr
    assert not laptop.record.exists()


def test_an_address_where_no_farm_is(laptop: Laptop) -> None:
    refused = laptop.run("login", "http://127.0.0.1:9", "--token-stdin", stdin="farm_x")
    assert refused.returncode == Exit.UNREACHABLE
    assert "No farm answers" in refused.stderr
