"""`farm user` and `farm link`, on the database and over HTTP; and who may be reached by others."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import Services, farm_settings
from running import WAIT_SECONDS, RunningFarm

from farm.embedded import free_port
from farm.settings import Settings

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def running(
    services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path
) -> Iterator[RunningFarm]:
    """A farm of which the dashboard runs; each test makes users of its own."""
    directory = tmp_path_factory.mktemp("people")
    with farm_settings(services, directory, models_directory) as settings:
        farm = RunningFarm(settings, directory)
        try:
            farm.start("dashboard")
            farm.await_dashboard()
            yield farm
        finally:
            farm.stop()


@pytest.fixture
def farm(running: RunningFarm, tmp_path: Path) -> RunningFarm:
    """The farm for one whose commands go to its database, and whose environment is their own."""
    farm = copy.copy(running)
    farm.environment = running.environment | {"XDG_STATE_HOME": str(tmp_path / "state")}
    return farm


@pytest.fixture(params=["database", "http"])
def desk(request: pytest.FixtureRequest, farm: RunningFarm) -> RunningFarm:
    """The farm for one whose users are made in its database, or over HTTP."""
    if request.param == "http":
        del farm.environment["FARM_DATABASE_URL"]
    return farm


@pytest.fixture
def ana(request: pytest.FixtureRequest) -> str:
    """A name that nobody has yet."""
    return f"ana-{request.node.callspec.id}"


def user_command(farm: RunningFarm, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "farm.cli", *arguments],
        env=farm.environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )


def users(farm: RunningFarm) -> dict[str, dict]:
    listed = user_command(farm, "user", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    return {user["name"]: user for user in json.loads(listed.stdout)}


def log_in(farm: RunningFarm, name: str, password: str) -> int:
    return httpx.post(f"{farm.url}/login", data={"name": name, "password": password}, timeout=WAIT_SECONDS).status_code


def test_a_life_of_a_user(desk: RunningFarm, ana: str) -> None:
    add = ["user", "add", ana, "--role", "viewer", "--password-stdin"]
    made = user_command(desk, *add, stdin=PASSWORD + "\n")
    assert (made.returncode, made.stdout) == (0, f"{ana} is viewer now.\n"), made.stderr
    assert log_in(desk, ana, PASSWORD) == 303
    taken = user_command(desk, *add, stdin=PASSWORD)
    assert taken.returncode == 2
    assert f"'{ana}' is taken" in taken.stderr
    assert "Nothing was changed" in taken.stderr
    # A script may say so every time.
    assert user_command(desk, *add, "--if-missing", stdin="of another user").returncode == 0
    assert log_in(desk, ana, PASSWORD) == 303

    assert user_command(desk, "user", "role", ana, "operator").returncode == 0
    assert users(desk)[ana]["role"] == "operator"
    assert "operator" in user_command(desk, "user", "list").stdout
    assert user_command(desk, "user", "password", ana, "--password-stdin", stdin="another battery").returncode == 0
    assert (log_in(desk, ana, PASSWORD), log_in(desk, ana, "another battery")) == (403, 303)
    assert user_command(desk, "user", "disable", ana).returncode == 0
    assert users(desk)[ana]["disabled"]
    assert log_in(desk, ana, "another battery") == 403
    assert user_command(desk, "user", "enable", ana).returncode == 0
    assert log_in(desk, ana, "another battery") == 303

    link = user_command(desk, "link", ana).stdout.strip()
    assert link.startswith(f"{desk.url}/enter/")
    with httpx.Client(timeout=WAIT_SECONDS) as browser:
        assert browser.get(link).status_code == 303
        assert browser.get(f"{desk.url}/api/v1/me").json()["name"] == ana
    mine = user_command(desk, "link").stdout.strip()
    with httpx.Client(timeout=WAIT_SECONDS) as browser:
        browser.get(mine)
        assert browser.get(f"{desk.url}/api/v1/me").json()["role"] == "admin"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["user", "role", "nobody", "viewer"], 1, "There is no user 'nobody'"),
        (["user", "add", "otto", "--role", "king", "--password-stdin"], 2, "king"),
        (["user", "add", "otto", "--role", "viewer", "--password-stdin"], 2, "10 to"),
        (["link", "nobody"], 1, "There is no user 'nobody'"),
    ],
)
def test_mistakes_are_explained(desk: RunningFarm, arguments: list[str], status: int, told: str) -> None:
    refused = user_command(desk, *arguments, stdin="short")
    assert refused.returncode == status
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "otto" not in {user["name"] for user in desk.client.users()}


def test_the_last_administrator_cannot_be_locked_out(desk: RunningFarm) -> None:
    (admin,) = (name for name, user in users(desk).items() if user["role"] == "admin")
    refused = user_command(desk, "user", "disable", admin)
    assert refused.returncode == 2
    assert "last administrator" in refused.stderr


def test_those_who_are_no_administrators_are_told_so(farm: RunningFarm) -> None:
    user_command(farm, "user", "add", "olga", "--role", "operator", "--no-password")
    link = user_command(farm, "link", "olga").stdout.strip()
    with httpx.Client(timeout=WAIT_SECONDS) as browser:
        browser.get(link)
        made = browser.post(f"{farm.url}/api/v1/tokens", json={"name": "cli"})
    del farm.environment["FARM_DATABASE_URL"]
    farm.environment["FARM_TOKEN"] = made.json()["token"]
    refused = user_command(farm, "user", "list")
    assert refused.returncode == 4
    assert "takes the role admin, and olga is operator" in refused.stderr
    assert user_command(farm, "link").returncode == 0


def test_without_farm_and_database_it_says_what_to_do(farm: RunningFarm) -> None:
    del farm.environment["FARM_DATABASE_URL"]
    farm.environment["FARM_URL"] = f"http://127.0.0.1:{free_port()}"
    nowhere = user_command(farm, "user", "list")
    assert nowhere.returncode == 3
    assert "No farm answers" in nowhere.stderr
    farm.environment["FARM_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    away = user_command(farm, "user", "list")
    assert away.returncode == 1
    assert "does not answer" in away.stderr
    assert "Traceback" not in away.stderr


def test_an_unmigrated_database_is_explained(farm: RunningFarm, services) -> None:
    services.execute("CREATE DATABASE farm_bare")
    try:
        farm.environment["FARM_DATABASE_URL"] = services.database_url("farm_bare")
        bare = user_command(farm, "user", "list")
        assert bare.returncode == 1
        assert "farm migrate" in bare.stderr
    finally:
        services.execute("DROP DATABASE farm_bare WITH (FORCE)")


def test_a_farm_for_others_starts_once_somebody_can_log_in(settings: Settings, tmp_path: Path) -> None:
    farm = RunningFarm(settings, tmp_path)
    farm.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
    farm.environment["FARM_HOST"] = "0.0.0.0"
    options = ["up", "--host", "0.0.0.0", "--devices", "cpu", "--pipeline", "tiny"]
    refused = user_command(farm, *options)
    assert refused.returncode == 1
    assert "farm user add NAME --role admin" in refused.stderr
    assert "Traceback" not in refused.stderr
    made = user_command(farm, "user", "add", "ana", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    assert made.returncode == 0, made.stderr
    try:
        process = farm.start(*options)
        farm.await_dashboard()
        assert process.poll() is None
        assert log_in(farm, "ana", PASSWORD) == 303
        assert os.environ.get("FARM_HOST") is None
    finally:
        farm.stop()
