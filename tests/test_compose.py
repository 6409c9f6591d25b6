"""docker-compose.yml and Dockerfile, as far as they can be checked without a container engine."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from farm.cli import app
from farm.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
OURS = {
    name: service for name, service in COMPOSE["services"].items() if service.get("image", "").startswith("sdxl-farm")
}


def test_the_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_all_parts_are_there() -> None:
    assert OURS.keys() == {"migrate", "administrator", "producer", "dashboard", "worker-base", "worker-refiner"}
    assert {"postgres", "redis", "s3"} == COMPOSE["services"].keys() - OURS.keys()


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_that_farm_takes(name: str) -> None:
    words = OURS[name]["command"]
    if words[0] == "sh":
        # Something hands it what it reads.
        words = shlex.split(words[-1].rpartition("|")[2])
    program, *rest = words
    assert program == "farm"
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        part, *rest = rest
        command = command.commands[part]
    command.make_context(part, rest)


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists(name: str) -> None:
    settings = {f"FARM_{field.upper()}" for field in Settings.model_fields}
    given = {variable for variable in OURS[name]["environment"] if variable.startswith("FARM_")}
    assert given <= settings
    assert {"FARM_DATABASE_URL", "FARM_BROKER_URL", "FARM_STORE_URL"} <= given


def test_every_service_waits_for_what_it_needs() -> None:
    for name, service in COMPOSE["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            if condition == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][needed], (name, needed)
            else:
                assert COMPOSE["services"][needed]["restart"] == "on-failure"


def test_nobody_reaches_the_dashboard_before_there_is_an_administrator_with_a_password_of_ones_own() -> None:
    assert OURS["dashboard"]["depends_on"]["administrator"] == {"condition": "service_completed_successfully"}
    # Without the variable Compose refuses to start anything: there is no password that everybody knows.
    assert OURS["administrator"]["environment"]["ADMIN_PASSWORD"].startswith("${FARM_ADMIN_PASSWORD:?")


def test_workers_reserve_gpus_and_only_the_dashboard_is_reachable() -> None:
    for name in ("worker-base", "worker-refiner"):
        (device,) = OURS[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["dashboard"]
    assert all(port.startswith("127.0.0.1:") for port in OURS["dashboard"]["ports"])


def test_the_image_holds_every_package_and_runs_as_nobody_special() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for package in ("farm", "producer", "worker", "dashboard", "migrations"):
        assert f"COPY {package} {package}" in dockerfile
    assert "USER farm" in dockerfile
