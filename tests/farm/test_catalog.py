"""The catalog: built-in entries and a file that extends them."""

from pathlib import Path

import pytest

from farm.catalog import Catalog
from farm.errors import ConfigurationError, NotFoundError


def test_the_real_sdxl_is_named_in_full() -> None:
    entry = Catalog.load().get("sdxl-1.0")
    assert entry.base == "stabilityai/stable-diffusion-xl-base-1.0"
    assert entry.refiner == "stabilityai/stable-diffusion-xl-refiner-1.0"
    assert (entry.dtype, entry.variant) == ("float16", "fp16")


def test_a_file_extends_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(
        '[pipelines.mine]\nbase = "./mine"\n[pipelines.mine.defaults]\nwidth = 512\n[pipelines.tiny]\nbase = "x"\n'
    )
    catalog = Catalog.load(file)
    assert catalog.get("mine").local_path("./mine", Path("/models")) == "/models/mine"
    assert catalog.get("mine").defaults.width == 512
    assert catalog.get("tiny").refiner is None
    assert {entry.name for entry in catalog} == {"mine", "tiny", "sdxl-1.0"}


@pytest.mark.parametrize(
    "text", ["pipelines = 3", "[pipelines.a]\nbase = 3", "[pipelines.a]\nbase='x'\ncustom_pipeline='y'", "not toml"]
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="farm.toml"):
        Catalog.load(file)


def test_an_unknown_pipeline_is_answered_with_those_that_exist() -> None:
    with pytest.raises(NotFoundError, match="sdxl-1.0, tiny"):
        Catalog.load().get("sdxl")
