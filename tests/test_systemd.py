"""The units for systemd, as far as they can be checked where it does not run."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from command_lines import check_command

from farm.settings import Settings

DIRECTORY = Path(__file__).parents[1] / "deploy" / "systemd"
UNITS = sorted(path.name for path in DIRECTORY.glob("*.service"))
PREFIX = "/opt/sdxl-farm/bin/"


def read(name: str) -> dict[str, dict[str, list[str]]]:
    """Sections, and of each key its values in order: a key may stand there more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (DIRECTORY / name).read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = sections.setdefault(header[1], defaultdict(list))
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        assert re.fullmatch(r"[A-Z]\w+", key), line
        section[key].append(value)
    return sections


def variables() -> set[str]:
    text = (DIRECTORY / "farm.env").read_text(encoding="utf-8")
    return set(re.findall(r"^#?([A-Z_0-9]+)=", text, re.MULTILINE))


def test_there_is_a_unit_for_each_part() -> None:
    assert UNITS == ["farm-dashboard.service", "farm-producer.service", "farm-worker.service"]


@pytest.mark.parametrize("name", UNITS)
def test_every_command_is_one_that_farm_takes(name: str) -> None:
    service = read(name)["Service"]
    (start,) = service["ExecStart"]
    commands = [start, *(command for command in service["ExecStartPre"] if command.startswith(PREFIX))]
    for command in commands:
        # Of the options nothing is known but that they are the command's.
        words = command.replace("$WORKER_OPTIONS", "--stage base --devices cuda:0").removeprefix(PREFIX).split()
        check_command(words)
    assert start.startswith(f"{PREFIX}farm {name.removeprefix('farm-').removesuffix('.service')}")


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_stops_in_order_starts_again_and_may_do_little(name: str) -> None:
    unit = read(name)
    service = unit["Service"]
    expected = {
        "Type": "exec",
        "User": "farm",
        "EnvironmentFile": "/etc/sdxl-farm/farm.env",
        # The first process hears SIGTERM alone: it tells its children.
        "KillMode": "mixed",
        "Restart": "on-failure",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
    }
    assert {key: service[key] for key in expected} == {key: [value] for key, value in expected.items()}
    # It may write nowhere else, so that is where it keeps what it keeps.
    assert service["StateDirectory"] == ["sdxl-farm"]
    assert "FARM_DATA=/var/lib/sdxl-farm" in service["Environment"][0].split()
    assert unit["Install"]["WantedBy"] == ["multi-user.target"]
    assert unit["Unit"]["After"][0].startswith("network-online.target")


def test_workers_have_time_to_finish_and_see_their_devices() -> None:
    service = read("farm-worker.service")["Service"]
    assert service["TimeoutStopSec"] == ["10min"]
    assert "PrivateDevices" not in service
    assert "MemoryDenyWriteExecute" not in service


def test_the_settings_are_settings_and_the_three_of_a_cluster_are_among_them() -> None:
    settings = {f"FARM_{field.upper()}" for field in Settings.model_fields}
    named = {name for name in variables() if name.startswith("FARM_")}
    assert {"FARM_DATABASE_URL", "FARM_BROKER_URL", "FARM_STORE_URL"} <= named <= settings
    assert "WORKER_OPTIONS" in variables()
