"""Every example of docs/capabilities.md, copied into a file and submitted, is rendered by a running farm."""

import json
import re
import shutil
from pathlib import Path

from PIL import Image
from running import RunningFarm

from farm.formats import read_parameters
from farm.schedulers import SCHEDULERS
from farm.spec import ROW_FIELDS, ImageParameters

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
EXAMPLES = [line for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


def test_every_example_is_rendered(shared_farm: RunningFarm, tmp_path: Path) -> None:
    for picture in (ROOT / "examples" / "pictures").iterdir():
        shutil.copy(picture, tmp_path)
    file = tmp_path / "examples.jsonl"
    file.write_text("\n".join(EXAMPLES), encoding="utf-8")
    farm = shared_farm
    every = farm.client.submit(file=file, seed=1)
    job = farm.await_job(every.id)
    assert (job["state"], job["errors"]) == ("completed", [])
    assert job["images"]["completed"] == len(EXAMPLES)
    for path, line in zip(every.download(tmp_path / "out"), EXAMPLES, strict=True):
        # Each tells what it was made from, and that is a spec again.
        told = read_parameters(path.read_bytes())["parameters"]
        assert ImageParameters.model_validate(told).prompt == json.loads(line)["prompt"]
    few = farm.client.submit(["a fox"], seed=1)
    assert farm.await_job(few.id)["state"] == "completed"

    sheet = tmp_path / "sheet.png"
    made = farm.command("grid", str(few.id), sheet, "--by", "guidance_scale,steps", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == {"file": str(sheet), "images": 1}
    with Image.open(sheet) as picture:
        assert picture.width > 256
    # Everything, also what is no picture.
    whole = farm.command("grid", str(every.id), sheet)
    assert whole.returncode == 0, whole.stderr
    wrong = farm.command("grid", str(every.id), sheet, "--by", "gidance_scale")
    assert wrong.returncode == 1
    assert "did you mean guidance_scale" in wrong.stderr


def test_every_parameter_and_every_scheduler_is_shown() -> None:
    for name in ROW_FIELDS:
        assert re.search(rf"\b{name}\b", TEXT), name
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", TEXT, re.MULTILINE))
    assert rows == {entry.name: entry.label for entry in SCHEDULERS.values()}
