"""Passwords and keys in the settings turn up nowhere: in no error, log, help text or process list."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from running import RunningFarm, wait_until
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from farm.cli import app
from farm.embedded import free_port

SECRETS = {
    "database": "s3cr3t-of-postgres",
    "broker": "s3cr3t-of-valkey",
    "store": "s3cr3t-of-the-store",
    "messages": "s3cr3t-of-the-messages",
    "token": "farm_s3cr3t-of-the-token",
}
#: What is run until it has said its say: the parts outlive any outage, and would go on for ever.
COMMANDS = (
    ("doctor",),
    ("doctor", "--json"),
    ("migrate",),
    ("audit",),
    ("retention", "orphans"),
    ("jobs",),
    ("producer",),
    ("dashboard",),
    ("worker", "--device", "cpu"),
)

#: What parts say that go on.
AGAIN = (b"trying again", b"starting it again")


@pytest.fixture
def environment(tmp_path: Path, models_directory: Path) -> dict[str, str]:
    """Everything has its secret, and nothing is there."""
    nowhere = free_port()
    return os.environ | {
        "FARM_DATABASE_URL": f"postgresql://farm:{SECRETS['database']}@127.0.0.1:{nowhere}/farm",
        "FARM_BROKER_URL": f"redis://:{SECRETS['broker']}@127.0.0.1:{nowhere}/0",
        "FARM_STORE_URL": "s3://farm",
        "FARM_MESSAGE_KEY": SECRETS["messages"],
        "FARM_S3_ENDPOINT_URL": f"http://127.0.0.1:{nowhere}",
        "AWS_ACCESS_KEY_ID": "farm",
        "AWS_SECRET_ACCESS_KEY": SECRETS["store"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "FARM_TOKEN": SECRETS["token"],
        "FARM_URL": f"http://127.0.0.1:{nowhere}",
        "FARM_DATA": str(tmp_path),
        "FARM_MODELS": str(models_directory),
        "FARM_LOG_LEVEL": "DEBUG",
        "FARM_PIPELINE": "tiny",
        "FARM_PORT": str(free_port()),
    }


def said(output: str) -> list[str]:
    """The secrets that are in it."""
    return [name for name, secret in SECRETS.items() if secret in output]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_tells_secrets_when_all_is_away(
    command: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "farm.cli", *command], env=environment, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: process.poll() is not None or any(words in log.read_bytes() for words in AGAIN), "an error")
        listed = [argument for one in children(process.pid) for argument in one]
    finally:
        process.kill()
        process.wait()
    text = log.read_text(errors="replace")
    assert text
    assert said(text) == []
    assert said(" ".join(listed)) == []


@pytest.mark.parametrize("command", ["doctor", "migrate", "producer"])
def test_no_command_tells_a_secret_that_cannot_be_used(command: str, environment: dict[str, str]) -> None:
    environment["FARM_MESSAGE_KEY"] = "s3cr3t"
    ran = subprocess.run(
        [sys.executable, "-m", "farm.cli", command], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode
    assert "s3cr3t" not in ran.stdout + ran.stderr


def children(process_id: int) -> list[list[str]]:
    try:
        process = psutil.Process(process_id)
        return [one.cmdline() for one in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def every_command(command: Any, *names: str) -> Iterator[list[str]]:
    """The words that call each, the groups too."""
    yield [*names]
    for name, one in getattr(command, "commands", {}).items():
        yield from every_command(one, *names, name)


def test_no_help_tells_secrets(environment: dict[str, str]) -> None:
    commands = [*every_command(typer.main.get_command(app))]
    assert ["token", "make"] in commands
    for command in commands:
        ran = CliRunner().invoke(app, [*command, "--help"], env=environment)
        assert ran.exit_code == 0
        assert said(ran.output) == []


def test_process_lists_show_no_secret_of_a_running_farm(shared_farm: RunningFarm) -> None:
    settings = shared_farm.settings
    secrets = [
        secret
        for secret in (password(settings.database_url), password(settings.broker_url), shared_farm.token)
        if secret
    ]
    assert len(secrets) >= 2
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        assert not any(secret in line for secret in secrets), line


def password(url: str | None) -> str | None:
    found = make_url(str(url)).password
    return None if found is None else str(found)
