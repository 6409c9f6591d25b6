"""The first calls before a worker takes work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from farm.batch_sizes import BatchSizes
from farm.catalog import Catalog, Pipeline
from farm.states import Stage
from worker.memory import MemoryLimits
from worker.pipelines import load
from worker.warm_up import warm_up

TINY = Catalog.load().get("tiny")


def small(**changes: Any) -> Pipeline:
    defaults = TINY.defaults.model_copy(update={"width": 64, "height": 64})
    return TINY.model_copy(update={"defaults": defaults, **changes})


def watched(unet: torch.nn.Module, seen: list[torch.Size]) -> Callable[[], None]:
    return unet.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape)).remove


def test_each_stage_renders_a_full_batch_of_the_default_size(models_directory: Path, tmp_path: Path) -> None:
    pipeline = load(small(), models_directory, "cpu", frozenset(Stage))
    of_base: list[torch.Size] = []
    of_refiner: list[torch.Size] = []
    watched(pipeline.base.unet, of_base)
    watched(pipeline.refiner.unet, of_refiner)
    warm_up(pipeline, frozenset(Stage), MemoryLimits(tmp_path / "limits.json", "cpu"), BatchSizes(3))
    # With guidance each image is there twice.
    assert set(of_base) == set(of_refiner) == {torch.Size((6, 4, 8, 8))}


def test_a_batch_too_large_for_the_device_is_found_out_then(models_directory: Path, tmp_path: Path) -> None:
    pipeline = load(small(), models_directory, "cpu", {Stage.BASE})

    def refuse(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if len(given[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    pipeline.base.unet.register_forward_pre_hook(refuse)
    limits = MemoryLimits(tmp_path / "limits.json", "cpu")
    warm_up(pipeline, {Stage.BASE}, limits, BatchSizes(3))
    assert limits.limit("tiny, base, text, 64x64") == 1
