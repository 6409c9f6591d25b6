import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from farm.catalog import Catalog, Pipeline
from farm.errors import ConfigurationError
from farm.states import Stage
from worker.pipelines import LoadedPipeline, load

BOTH = frozenset(Stage)


def test_base_and_refiner_on_one_device_share_their_tensors(pipeline: LoadedPipeline) -> None:
    for part in ("text_encoder_2", "vae"):
        ours, theirs = getattr(pipeline.base, part), getattr(pipeline.refiner, part)
        pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
        assert pairs
        assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)


def test_only_the_stages_that_are_served_are_loaded(models_directory: Path) -> None:
    entry = Catalog.load().get("tiny")
    assert load(entry, models_directory, "cpu", {Stage.REFINER}).base is None
    assert load(entry, models_directory, "cpu", {Stage.BASE}).refiner is None


def test_an_entry_without_a_refiner_serves_its_base_alone(models_directory: Path) -> None:
    entry = Catalog.load().get("tiny").model_copy(update={"refiner": None})
    assert load(entry, models_directory, "cpu", BOTH).refiner is None
    with pytest.raises(ConfigurationError, match="'tiny' has no refiner"):
        load(entry, models_directory, "cpu", {Stage.REFINER})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_have_the_entrys_dtype(models_directory: Path, dtype: str) -> None:
    entry = Catalog.load().get("tiny").model_copy(update={"dtype": dtype})
    loaded = load(entry, models_directory, "cpu", BOTH)
    for pipe in (loaded.base, loaded.refiner):
        assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder_2.dtype} == {getattr(torch, dtype)}


def test_the_fingerprint_names_what_pictures_depend_on(pipeline: LoadedPipeline) -> None:
    assert pipeline.fingerprint.keys() == {"farm", "torch", "diffusers", "transformers", "device", "threads", "dtype"}
    assert pipeline.fingerprint["dtype"] == "float32"
    assert all(pipeline.fingerprint.values())


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'gone'.*nowhere"):
        load(Pipeline(name="gone", base="./nowhere"), tmp_path, "cpu", {Stage.BASE})


def test_a_models_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the directory should be")
    with pytest.raises(ConfigurationError, match="FARM_MODELS"):
        load(Catalog.load().get("tiny"), tmp_path / "models", "cpu", BOTH)


def test_a_device_that_is_not_there_is_named(models_directory: Path) -> None:
    # No machine has a hundred GPUs: with CUDA or without, this one is missing.
    with pytest.raises(ConfigurationError, match="cuda:99"):
        load(Catalog.load().get("tiny"), models_directory, "cuda:99", {Stage.BASE})


def cut_weights(checkpoint: Path) -> None:
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def change_shape(checkpoint: Path) -> None:
    edit(checkpoint / "unet" / "config.json", block_out_channels=[32, 32, 32])


def cut_index(checkpoint: Path) -> None:
    (checkpoint / "model_index.json").write_text("{")


def name_a_stranger(checkpoint: Path) -> None:
    edit(checkpoint / "model_index.json", unet=["os", "getcwd"])


def bring_code(checkpoint: Path) -> None:
    edit(checkpoint / "model_index.json", unet=["evil", "Evil"])
    (checkpoint / "unet" / "evil.py").write_text("raise SystemExit('the code of a checkpoint ran')\n")


def bring_a_pickle(checkpoint: Path) -> None:
    weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def lose_tokenizer(checkpoint: Path) -> None:
    for file in (checkpoint / "tokenizer").iterdir():
        file.unlink()


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "damage",
    [cut_weights, change_shape, cut_index, name_a_stranger, bring_code, bring_a_pickle, lose_tokenizer],
    ids=lambda damage: damage.__name__,
)
@pytest.mark.usefixtures("pipeline")
def test_a_damaged_or_untrusted_checkpoint_is_refused(
    models_directory: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(models_directory / "tiny" / "base", tmp_path / "damaged")
    damage(tmp_path / "damaged")
    with pytest.raises(ConfigurationError, match=r"'studio'.*damaged"):
        load(Pipeline(name="studio", base="./damaged", dtype="float32"), tmp_path, "cpu", {Stage.BASE})
