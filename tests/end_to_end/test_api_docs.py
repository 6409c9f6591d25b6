"""docs/api.md is true: its examples run, in their order, against a farm."""

import json
import re
import subprocess
from pathlib import Path
from zipfile import ZipFile

from PIL import Image
from programs import find_program
from running import RunningFarm

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_examples_run(shared_farm: RunningFarm, tmp_path: Path) -> None:
    assert find_program("curl"), "install curl: the examples of docs/api.md speak to a farm with it"
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    ran = subprocess.run(
        ["sh", "-eux"],
        input=script,
        env=shared_farm.environment | {"FARM_URL": shared_farm.url, "FARM_TOKEN": shared_farm.token},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("event: image.completed") == 4
    assert "event: job.completed" in ran.stdout
    with Image.open(tmp_path / "fox.png") as picture:
        assert picture.size == (256, 256)
    with ZipFile(tmp_path / "pictures.zip") as archive:
        assert len([name for name in archive.namelist() if name.endswith(".png")]) == 4
    first = json.loads((tmp_path / "receipt.json").read_text())["id"]
    others = [job.wait() for job in shared_farm.client.jobs() if job.id > first]
    assert [(job.name, job.counts.completed) for job in reversed(others)] == [
        ("towers", 2),
        ("a fox of glass", 1),
        ("a tower", 2),
    ]
