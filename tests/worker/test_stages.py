"""What the stages promise beside their pixels (those are compared in tests/conformance)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance.cases import parameters, quiet, render
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from farm.catalog import Catalog
from farm.errors import RenderInterrupted
from farm.states import Stage
from worker import stages
from worker.decoding import BrokenPictureError
from worker.pipelines import LoadedPipeline, load

SMALL = {"width": 64, "height": 64, "num_inference_steps": 5}


def test_latents_come_in_the_pipelines_dtype_on_the_cpu(pipeline: LoadedPipeline) -> None:
    images = [parameters("a", 1, **{**SMALL, "width": 96}), parameters("b", 2, **{**SMALL, "width": 96})]
    latents = stages.render_base(pipeline, images, {}, quiet)
    assert (latents.shape, latents.dtype, latents.device.type) == ((2, 4, 8, 12), torch.float32, "cpu")


def test_each_stage_counts_its_own_steps(pipeline: LoadedPipeline) -> None:
    image = parameters("a", 1, **SMALL)
    of_base: list[tuple[int, int]] = []
    of_refiner: list[tuple[int, int]] = []
    latents = stages.render_base(pipeline, [image], {}, lambda seen: of_base.append((seen.done, seen.of)))
    stages.render_refiner(pipeline, [image], {}, latents, lambda seen: of_refiner.append((seen.done, seen.of)))
    assert of_base == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert of_refiner == [(1, 1)]


def test_stopping_takes_one_step_and_leaves_the_pipeline_usable(pipeline: LoadedPipeline) -> None:
    image = parameters("a fox", 1, **SMALL, refiner_split=0.4)
    alone = parameters("a fox", 1, **SMALL, refiner_split=None)
    latents = stages.render_base(pipeline, [image], {}, quiet)

    def run(stage: str, on_step: stages.OnStep) -> bytes:
        if stage == "base":
            return stages.render_base(pipeline, [image], {}, on_step).numpy().tobytes()
        if stage == "refiner":
            return stages.render_refiner(pipeline, [image], {}, latents, on_step)[0].tobytes()
        return stages.render_base_only(pipeline, [alone], {}, on_step)[0].tobytes()

    for stage in ("base", "refiner", "alone"):
        before = run(stage, quiet)
        seen: list[int] = []

        def stop(step: stages.Step, seen: list[int] = seen) -> None:
            seen.append(step.done)
            raise RenderInterrupted("cancelled")

        with pytest.raises(RenderInterrupted, match="cancelled"):
            run(stage, stop)
        assert seen == [1]
        assert run(stage, quiet) == before


def test_pictures_follow_prompt_seed_and_refiner(pipeline: LoadedPipeline) -> None:
    def render(prompt: str, seed: int) -> bytes:
        image = parameters(prompt, seed, **SMALL)
        return stages.render_refiner(pipeline, [image], {}, stages.render_base(pipeline, [image], {}, quiet), quiet)[
            0
        ].tobytes()

    alone = stages.render_base_only(pipeline, [parameters("a fox", 1, **SMALL, refiner_split=None)], {}, quiet)
    assert len({render("a fox", 1), render("a fox", 2), render("an owl", 1), alone[0].tobytes()}) == 4


def test_images_that_cannot_share_a_batch_are_refused(pipeline: LoadedPipeline) -> None:
    for other in (parameters("b", 1, guidance_scale=7.0), parameters("b", 1, negative_prompt="")):
        with pytest.raises(ValueError, match="cannot share a batch"):
            stages.render_base(pipeline, [parameters("a", 1), other], {}, quiet)
    with pytest.raises(ValueError, match="no images"):
        stages.render_base(pipeline, [], {}, quiet)


def test_a_split_that_does_not_fit_the_stage_is_refused(pipeline: LoadedPipeline) -> None:
    refined, alone = parameters("a", 1, **SMALL), parameters("a", 1, **SMALL, refiner_split=None)
    with pytest.raises(ValueError, match="do not fit this stage"):
        stages.render_base(pipeline, [alone], {}, quiet)
    with pytest.raises(ValueError, match="do not fit this stage"):
        stages.render_refiner(pipeline, [alone], {}, torch.zeros(1, 4, 8, 8), quiet)
    with pytest.raises(ValueError, match="do not fit this stage"):
        stages.render_base_only(pipeline, [refined], {}, quiet)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (1, 4, 8, 16), (4, 8, 8)])
def test_latents_of_other_images_are_refused(pipeline: LoadedPipeline, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="latents of shape"):
        stages.render_refiner(pipeline, [parameters("a", 1, **SMALL)], {}, torch.zeros(shape), quiet)


def test_nan_is_an_error_and_no_black_picture(pipeline: LoadedPipeline, models_directory: Path) -> None:
    refined, alone = parameters("a", 1, **SMALL), parameters("a", 1, **SMALL, refiner_split=None)
    with pytest.raises(BrokenPictureError):
        stages.render_refiner(pipeline, [refined], {}, torch.full((1, 4, 8, 8), float("nan")), quiet)
    for part in ("unet", "vae"):
        broken = load(Catalog.load().get("tiny"), models_directory, "cpu", {Stage.BASE})
        layer = broken.base.unet.conv_out if part == "unet" else broken.base.vae.decoder.conv_out
        with torch.no_grad():
            layer.bias.fill_(float("nan"))
        with pytest.raises(BrokenPictureError):
            stages.render_base_only(broken, [alone], {}, quiet)
        if part == "unet":
            with pytest.raises(BrokenPictureError):
                stages.render_base(broken, [refined], {}, quiet)


def test_a_vae_left_in_float32_by_a_failed_decoding_is_mended(models_directory: Path) -> None:
    entry = Catalog.load().get("tiny").model_copy(update={"dtype": "bfloat16"})
    half = load(entry, models_directory, "cpu", {Stage.BASE})
    alone = parameters("a", 1, **SMALL, refiner_split=None)
    before = stages.render_base_only(half, [alone], {}, quiet)[0]
    # What diffusers' upcast_vae does before it decodes, and undoes only after success.
    half.base.vae.to(torch.float32)
    after = stages.render_base_only(half, [alone], {}, quiet)[0]
    assert half.base.vae.dtype == torch.bfloat16
    assert after.tobytes() == before.tobytes()


def test_a_stage_that_was_not_loaded_is_named(models_directory: Path) -> None:
    image = parameters("a", 1, **SMALL)
    only_base = load(Catalog.load().get("tiny"), models_directory, "cpu", {Stage.BASE})
    with pytest.raises(ValueError, match="without its refiner"):
        stages.render_refiner(only_base, [image], {}, torch.zeros(1, 4, 8, 8), quiet)
    only_refiner = load(Catalog.load().get("tiny"), models_directory, "cpu", {Stage.REFINER})
    with pytest.raises(ValueError, match="without its base"):
        stages.render_base(only_refiner, [image], {}, quiet)


class Readings(TorchDispatchMode):
    """Counts how often Python reads a tensor's values, but for those that lie on the CPU for every device: a scheduler's
    own, and what is computed of these alone."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.pipe, self.count = pipe, 0
        self.of_schedule: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        own = [
            value
            for name, value in vars(self.pipe.scheduler).items()
            if isinstance(value, torch.Tensor) and name != "timesteps"
        ]
        known = {tensor.untyped_storage().data_ptr() for tensor in (*own, *self.of_schedule)}
        if given and all(tensor.untyped_storage().data_ptr() in known for tensor in given):
            self.of_schedule += [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        elif func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.count += 1
        return made


@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "dpmpp_2m", "unipc"])
def test_no_step_waits_for_the_device(pipeline: LoadedPipeline, scheduler: str) -> None:
    """On a GPU, whoever reads a tensor waits until all is done that was asked of the device before.

    What a call reads once does no harm, so a call of few steps is compared with one of many.
    """
    counts = []
    for steps in (4, 12):
        image = parameters("a fox", 1, width=64, height=64, num_inference_steps=steps, refiner_split=None)
        with Readings(pipeline.base) as readings:
            render(pipeline, [image.model_copy(update={"scheduler": scheduler})])
        counts.append(readings.count)
    assert counts[0] == counts[1] > 0
