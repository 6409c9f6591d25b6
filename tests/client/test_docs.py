"""docs/python.md is true, and the README where it speaks of the client: examples run in their order, against a farm."""

import re
from pathlib import Path

import pytest
from PIL import Image
from running import RunningFarm

import producer
from farm.errors import FarmError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def examples(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_all(blocks: list[str], running: RunningFarm, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARM_URL", running.url)
    monkeypatch.setenv("FARM_TOKEN", running.token)
    monkeypatch.chdir(directory)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, block.strip().splitlines()[0], "exec"), namespace)


def test_the_examples_of_the_page_run(
    running: RunningFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(examples(PAGE), running, tmp_path, monkeypatch)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["000000_seed42.png", "000001_seed43.png"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * 128
    assert len([*tmp_path.glob("*-*.png")]) == 4
    shown = capsys.readouterr().out
    assert "a house, view 2 (128, 128)" in shown
    assert "2 guidance_scale '-1' is not possible" in shown or "2 guidance_scale -1 is not possible" in shown
    assert shown.count("fox") >= 2


def test_the_examples_of_the_readme_run(running: RunningFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [block for block in examples(README) if "from producer import" in block]
    run_all([example], running, tmp_path, monkeypatch)
    assert len([*(tmp_path / "pictures").iterdir()]) == 2


def test_every_error_is_listed() -> None:
    errors = {
        name
        for name in producer.__all__
        if isinstance(exported := getattr(producer, name), type) and issubclass(exported, FarmError)
    }
    assert errors - {"FarmError"} == set(re.findall(r"`(\w+Error)`", PAGE.split("| error |")[1].split("\n\n")[0]))
