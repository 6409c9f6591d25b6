"""docs/cli.md is true: its tables are complete, and its examples run, in their order, against a farm."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from conftest import Services, farm_settings
from running import running_farm

from farm.cli import app
from producer.commands.terms import Exit
from worker.tiny import write_tiny_checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(group: object, path: str) -> set[str]:
    found = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found |= commands(command, f"{path} {name}") if hasattr(command, "commands") else {f"{path} {name}"}
    return found


def test_every_command_is_listed() -> None:
    assert set(re.findall(r"^\| `(farm [a-z -]+)` \|", PAGE, re.MULTILINE)) == commands(
        typer.main.get_command(app), "farm"
    )


def test_every_exit_status_is_listed() -> None:
    assert {int(code) for code in re.findall(r"^\| `(\d+)` \|", PAGE, re.MULTILINE)} == set(Exit)


def test_the_examples_run(
    services: Services, tmp_path: Path, models_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_tiny_checkpoint(models_directory / "tiny")
    work = tmp_path_factory.mktemp("work")
    (bin_directory := tmp_path / "bin").mkdir()
    script = bin_directory / "farm"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m farm.cli "$@"\n')
    script.chmod(0o755)
    with (
        farm_settings(services, tmp_path, models_directory) as settings,
        running_farm(settings, tmp_path, ["--device", "cpu"]) as farm,
    ):
        environment = farm.environment | {
            "PATH": f"{bin_directory}:{farm.environment['PATH']}",
            "PYTHONPATH": str(Path.cwd()),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }
        outputs = {}
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
            ran = subprocess.run(
                ["sh", "-euxc", block],
                env=environment,
                cwd=work,
                capture_output=True,
                text=True,
                check=False,
                timeout=240,
            )
            assert ran.returncode == 0, f"{block}\n{ran.stdout}\n{ran.stderr}"
            outputs[block] = ran.stdout
    shown = "".join(outputs.values())
    assert "2 images in 1 batches; nothing was submitted" in shown
    assert "completed: 3 pictures" in shown
    assert shown.count("  completed  seed") >= 3
    assert "Job 6: Both animals, priority 80." in shown
    assert "Job 2 is deleted." in shown
    assert len([*work.glob("pictures/*.png")]) == 2 + 3
    assert len((work / "images.jsonl").read_text().splitlines()) == 3
    assert (work / "job-2.zip").stat().st_size > 1000
