"""How many images a call takes best, found by measurement."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from farm.catalog import Catalog
from farm.states import Stage
from worker import tuning
from worker.devices import Device, one_of_each_kind
from worker.pipelines import LoadedPipeline, load
from worker.tuning import Tuning, best_of, tune

TINY = Catalog.load().get("tiny")
SIZE = (64, 64)


@pytest.fixture(scope="module")
def pipeline(models_directory: Path) -> LoadedPipeline:
    return load(TINY, models_directory, "cpu", {Stage.BASE})


@pytest.mark.parametrize(
    ("seconds", "best"),
    [({1: 4.0, 2: 3.0, 4: 2.0, 8: 1.99}, 4), ({1: 1.0, 2: 1.1}, 1), ({1: 4.0, 2: 3.0, 4: 2.0}, 4)],
)
def test_the_smallest_of_the_fastest_is_best(seconds: dict[int, float], best: int) -> None:
    assert best_of(seconds) == best


def test_batches_are_doubled_until_they_gain_nothing(pipeline: LoadedPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {1: 4.0, 2: 3.0, 4: 3.1, 8: 2.0, 16: 2.1, 32: 2.0, 64: 0.1}
    seen: list[int] = []
    monkeypatch.setattr(tuning, "seconds_per_image", lambda *given: taken[given[-1]])
    assert tune(pipeline, Stage.BASE, SIZE, lambda images, _: seen.append(images)) == 8
    assert seen == [1, 2, 4, 8, 16, 32]


def test_where_memory_runs_out_the_search_ends(pipeline: LoadedPipeline) -> None:
    def refuse(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        # With guidance each image is there twice.
        if len(given[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    seen: dict[int, float | None] = {}
    hook = pipeline.base.unet.register_forward_pre_hook(refuse)
    try:
        best = tune(pipeline, Stage.BASE, SIZE, seen.__setitem__)
    finally:
        hook.remove()
    assert [*seen] == [1, 2, 4]
    assert seen[4] is None
    assert best in (1, 2)


def test_an_error_of_another_kind_is_not_taken_for_want_of_memory(pipeline: LoadedPipeline) -> None:
    def fail(_module: torch.nn.Module, _given: object) -> None:
        raise RuntimeError("a broken driver")

    hook = pipeline.base.unet.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="broken driver"):
            tune(pipeline, Stage.BASE, SIZE)
    finally:
        hook.remove()


def test_what_was_found_is_kept_for_this_device_entry_and_versions(pipeline: LoadedPipeline, tmp_path: Path) -> None:
    path = tmp_path / "models" / "batch-sizes.json"
    known = Tuning(path, pipeline)
    known.remember(Stage.BASE, SIZE, 16)
    known.remember(Stage.BASE, (128, 128), 8)
    assert Tuning(path, pipeline).measured() == {Stage.BASE: {SIZE: 16, (128, 128): 8}}
    renamed = TINY.model_copy(update={"name": "other", "batch_size": 2})
    sliced = TINY.model_copy(update={"attention_slicing": True})
    for entry, found in ((renamed, True), (sliced, False)):
        assert bool(Tuning(path, _of_entry(pipeline, entry)).measured()) is found
    pipeline.fingerprint["torch"] += "+changed"
    assert Tuning(path, pipeline).measured() == {}


def test_a_worker_measures_what_nobody_did_and_only_that(
    pipeline: LoadedPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(tuning, "tune", lambda _pipeline, _stage, size: asked.append(size) or 16)
    known = Tuning(tmp_path / "batch-sizes.json", pipeline)
    known.complete(pipeline, [Stage.BASE])
    known.complete(pipeline, [Stage.BASE])
    assert asked == [(256, 256)]
    assert known.measured() == {Stage.BASE: {(256, 256): 16}}


def test_of_equal_devices_one_is_measured() -> None:
    assert one_of_each_kind([Device("cpu"), Device("cpu")]) == [Device("cpu")]


def test_the_command_prints_what_it_measured_and_keeps_it(models_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(models_directory / "tiny")
    command = [sys.executable, "-m", "farm.cli", "tune", "--pipeline", "tiny", "--size", "64x64", "--stage", "base"]
    environment = os.environ | {"FARM_MODELS": str(tmp_path)}
    done = subprocess.run(
        [*command, "--devices", "cpu,cpu", "--up-to", "2", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (tuned,) = json.loads(done.stdout)["tuned"]
    assert (tuned["stage"], tuned["width"], tuned["height"]) == ("base", 64, 64)
    assert tuned["best"] == best_of({int(images): taken for images, taken in tuned["seconds_per_image"].items()})
    (kept,) = json.loads((tmp_path / "batch-sizes.json").read_text()).values()
    assert kept == {"base": {"64x64": tuned["best"]}}
    # Too small for the model is found before anything is loaded.
    refused = subprocess.run(
        [*command, "--size", "64x56"], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "multiples of 8" in refused.stderr


def _of_entry(pipeline: LoadedPipeline, entry: object) -> LoadedPipeline:
    return LoadedPipeline(**{**vars(pipeline), "entry": entry})
