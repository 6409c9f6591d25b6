"""The files for Compose and the Dockerfile, as far as they can be checked without a container engine."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import check_command

from farm.settings import Settings

ROOT = Path(__file__).parents[1]
WHOLE, SHARED, WORKER = "docker-compose.yml", "deploy/compose/shared.yml", "deploy/compose/worker.yml"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def of_ours(compose: dict[str, Any]) -> dict[str, Any]:
    """The services that run a part of the farm."""
    services = compose["services"].items()
    return {name: service for name, service in services if service.get("image", "").startswith("sdxl-farm")}


def with_defaults(text: str) -> str:
    """What Compose makes of it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


COMPOSE = read(WHOLE)
OURS = of_ours(COMPOSE)
OF_WORKER = of_ours(read(WORKER))
ALL = OURS | OF_WORKER


def test_the_files_follow_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    files = [str(ROOT / name) for name in (WHOLE, SHARED, WORKER)]
    result = subprocess.run([*command, *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_all_parts_are_there() -> None:
    assert OURS.keys() == {"migrate", "administrator", "producer", "dashboard", "worker-base", "worker-refiner"}
    assert {"postgres", "redis", "s3"} == COMPOSE["services"].keys() - OURS.keys()


@pytest.mark.parametrize("name", ALL)
def test_every_command_is_one_that_farm_takes(name: str) -> None:
    words = [with_defaults(word) for word in ALL[name]["command"]]
    if words[0] == "sh":
        # Something hands it what it reads.
        words = shlex.split(words[-1].rpartition("|")[2])
    check_command(words)


@pytest.mark.parametrize("name", ALL)
def test_every_setting_exists(name: str) -> None:
    settings = {f"FARM_{field.upper()}" for field in Settings.model_fields}
    given = {variable for variable in ALL[name]["environment"] if variable.startswith("FARM_")}
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


def test_a_machine_that_only_renders_takes_three_settings() -> None:
    (worker,) = OF_WORKER.values()
    demanded = {name for name, value in worker["environment"].items() if value and value.startswith(f"${{{name}:?")}
    assert demanded == {"FARM_DATABASE_URL", "FARM_BROKER_URL", "FARM_STORE_URL"}
    (devices,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (devices["count"], devices["capabilities"]) == ("all", ["gpu"])
    # What it mounts and where it may write is as on the first machine.
    for name in ("image", "read_only", "tmpfs", "volumes", "restart"):
        assert worker[name] == OURS["worker-base"][name], name


def test_other_machines_reach_three_services_and_none_with_a_password_that_everybody_knows() -> None:
    services = read(SHARED)["services"]
    assert services.keys() == COMPOSE["services"].keys() - OURS.keys()
    for name, service in services.items():
        # Without these variables Compose refuses to start anything.
        assert all(port.startswith("${FARM_ADDRESS:?") for port in service["ports"]), name
        ((variable, password),) = service["environment"].items()
        asked = re.fullmatch(r"\$\{(\w+):\?.*\}", password)
        assert asked is not None, name
        assert COMPOSE["services"][name]["environment"][variable].startswith(f"${{{asked[1]}:-"), name


def test_the_image_holds_every_package_and_runs_as_nobody_special() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for package in ("farm", "producer", "worker", "dashboard", "migrations"):
        assert f"COPY {package} {package}" in dockerfile
    assert "USER farm" in dockerfile
