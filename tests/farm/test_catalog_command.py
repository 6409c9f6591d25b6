"""``farm catalog``: what the catalog says, and what is wrong with a file for it."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from farm.catalog import Catalog
from farm.cli import app
from farm.settings import get_settings

CATALOG = """
[pipelines.studio]
base = "studio/xl"
vram = 24
defaults = {num_inference_steps = 30}
[pipelines.tiny]
base = "./tiny/base"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "farm.toml"
    path.write_text(CATALOG)
    monkeypatch.setenv("FARM_CATALOG", str(path))
    get_settings.cache_clear()
    yield path
    get_settings.cache_clear()


def catalog(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["catalog", *map(str, arguments)])


def test_what_is_shown_is_a_file_that_says_the_same(file: Path, tmp_path: Path) -> None:
    shown = catalog("show").stdout
    assert "[pipelines.studio] # of the file\n" in shown
    assert "[pipelines.tiny] # of the file, in place of a built-in one\n" in shown
    assert '[pipelines."sdxl-1.0"] # built in\n' in shown
    again = tmp_path / "again.toml"
    again.write_text(shown)
    assert [*Catalog.load(again)] == [*Catalog.load(file)]
    told = json.loads(catalog("show", "--json").stdout)
    assert told["pipelines"]["studio"] == {"source": "of the file", **tomllib.loads(CATALOG)["pipelines"]["studio"]}


def test_a_good_file_is_said_to_be(file: Path) -> None:
    ran = catalog("check", file)
    assert ran.exit_code == 0
    assert "pipelines: sdxl-1.0" in ran.stdout
    assert "studio" in ran.stdout


def test_all_that_is_wrong_is_said_with_its_place(file: Path) -> None:
    file.write_text(
        """
[pipelines.studio]
base = "studio/xl"
batchsize = 3
dtype = "float8"
[pipelines.pickled]
base = "model.ckpt"
[lora.warm]
path = "x"
[loras]
loose = 1
"""
    )
    ran = catalog("check", file)
    assert ran.exit_code == 1
    lines = [line.strip() for line in ran.stderr.splitlines()]
    assert f"error: The catalog {file} cannot be used:" in lines
    assert "[pipelines.studio] batchsize is no field of it; did you mean batch_size?" in lines
    assert "[pipelines.studio] dtype: input should be 'float32', 'float16' or 'bfloat16'" in lines
    assert any(line.startswith("[pipelines.pickled] model.ckpt is a pickle") for line in lines)
    assert "[lora] is no table of a catalog; did you mean loras?" in lines
    assert "[loras] loose stands outside of an entry; write it below [loras.NAME]" in lines
