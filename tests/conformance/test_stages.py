"""The stages against plain diffusers: equal bit for bit one by one, within 1/255 in batches."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance import reference
from PIL import Image

from farm.catalog import Catalog, Pipeline
from farm.errors import ConfigurationError, ObjectCorruptError, RenderInterrupted
from farm.spec import ImageParameters
from farm.states import Stage
from worker import latents, stages
from worker.pipelines import LoadedPipeline, load
from worker.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def pipeline(models_directory: Path) -> LoadedPipeline:
    return load(Catalog.load().get("tiny"), models_directory, "cpu", {Stage.BASE, Stage.REFINER})


def parameters(prompt: str, seed: int, **changes: Any) -> ImageParameters:
    values = {
        "pipeline": "tiny",
        "width": 256,
        "height": 256,
        "num_inference_steps": 8,
        "guidance_scale": 5.0,
        "refiner_split": 0.8,
    }
    return ImageParameters.model_validate({**values, "prompt": prompt, "seed": seed, **changes})


def quiet(_step: int, _steps: int) -> None:
    """Nobody watches."""


def render(pipeline: LoadedPipeline, images: list[ImageParameters]) -> list[Image.Image]:
    if images[0].refiner_split is None:
        return stages.render_base_only(pipeline, images, quiet)
    sent = latents.pack(stages.render_base(pipeline, images, quiet), range(len(images)))
    return stages.render_refiner(pipeline, images, latents.unpack(sent), quiet)


def expected(models_directory: Path, image: ImageParameters) -> Image.Image:
    return reference.render(
        models_directory / "tiny",
        image.prompt,
        seed=image.seed,
        steps=image.num_inference_steps,
        split=image.refiner_split,
        width=image.width,
        height=image.height,
        guidance_scale=image.guidance_scale,
        negative_prompt=image.negative_prompt,
    )


CASES = [
    parameters("a red fox in the snow", 0),
    parameters("an owl at night", 2**40, num_inference_steps=13, refiner_split=0.5),
    parameters("wide", 3, width=320, height=192, num_inference_steps=5, refiner_split=0.7),
    parameters("without a refiner", 4, refiner_split=None),
    parameters("negative", 5, negative_prompt="blurry, dark"),
    parameters("empty negative", 6, negative_prompt=""),
    parameters("Füchse und 狐 " + "many words " * 60, 7, num_inference_steps=4),
    parameters("no guidance", 8, guidance_scale=1.0, num_inference_steps=20, refiner_split=0.9),
]


@pytest.mark.parametrize("image", CASES, ids=lambda image: image.prompt[:20])
def test_one_by_one_every_pixel_is_that_of_plain_diffusers(
    pipeline: LoadedPipeline, models_directory: Path, image: ImageParameters
) -> None:
    (picture,) = render(pipeline, [image])
    assert np.array_equal(np.asarray(picture), np.asarray(expected(models_directory, image)))


@pytest.mark.parametrize("shared", [{}, {"refiner_split": None}, {"width": 192, "negative_prompt": "grey"}], ids=str)
def test_in_a_batch_no_channel_differs_by_more_than_one(
    pipeline: LoadedPipeline, models_directory: Path, shared: dict[str, Any]
) -> None:
    images = [parameters(f"prompt number {n}", 100 + 7 * n, **shared) for n in range(5)]
    for image, picture in zip(images, render(pipeline, images), strict=True):
        difference = np.asarray(picture, int) - np.asarray(expected(models_directory, image), int)
        assert np.abs(difference).max() <= 1


def test_different_prompts_and_seeds_give_different_pictures(pipeline: LoadedPipeline) -> None:
    pictures = render(pipeline, [parameters("a fox", 1), parameters("a fox", 2), parameters("an owl", 1)])
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_the_refiner_changes_the_picture(pipeline: LoadedPipeline) -> None:
    refined, alone = (render(pipeline, [parameters("a fox", 1, refiner_split=split)])[0] for split in (0.8, None))
    assert refined.tobytes() != alone.tobytes()


def test_stopping_takes_one_step_and_leaves_the_pipeline_usable(pipeline: LoadedPipeline) -> None:
    image = parameters("a fox", 1)
    before = stages.render_base(pipeline, [image], quiet)
    seen = []

    def stop(step: int, steps: int) -> None:
        seen.append((step, steps))
        if step == 2:
            raise RenderInterrupted("cancelled")

    with pytest.raises(RenderInterrupted):
        stages.render_base(pipeline, [image], stop)
    assert seen == [(1, 6), (2, 6)]
    assert torch.equal(stages.render_base(pipeline, [image], quiet), before)


def test_images_that_cannot_share_a_batch_are_refused(pipeline: LoadedPipeline) -> None:
    for other in (parameters("b", 1, guidance_scale=7.0), parameters("b", 1, negative_prompt="x")):
        with pytest.raises(ValueError, match="cannot share a batch"):
            stages.render_base(pipeline, [parameters("a", 1), other], quiet)


def test_nan_is_an_error_and_no_black_picture(models_directory: Path) -> None:
    broken = load(Catalog.load().get("tiny"), models_directory, "cpu", {Stage.BASE})
    assert broken.base is not None
    with torch.no_grad():
        broken.base.unet.conv_out.bias.fill_(float("nan"))
    for render_stage in (stages.render_base, stages.render_base_only):
        with pytest.raises(stages.BrokenPictureError):
            render_stage(broken, [parameters("a", 1)], quiet)


def test_base_and_refiner_on_one_device_share_their_tensors(pipeline: LoadedPipeline) -> None:
    assert pipeline.base is not None
    assert pipeline.refiner is not None
    for part in ("text_encoder_2", "vae"):
        ours, theirs = getattr(pipeline.base, part), getattr(pipeline.refiner, part)
        pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
        assert pairs
        assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)


def test_a_stage_that_is_not_served_is_not_loaded(models_directory: Path) -> None:
    only = load(Catalog.load().get("tiny"), models_directory, "cpu", {Stage.REFINER})
    assert only.base is None
    assert only.refiner is not None


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = Pipeline(name="gone", base="./nowhere")
    with pytest.raises(ConfigurationError, match="'gone'.*nowhere"):
        load(entry, tmp_path, "cpu", {Stage.BASE})


def test_the_tiny_checkpoint_is_the_same_every_time(tmp_path: Path) -> None:
    def hashes(directory: Path) -> dict[str, str]:
        return {
            str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(directory.rglob("*"))
            if file.is_file()
        }

    write_tiny_checkpoint(tmp_path / "one")
    write_tiny_checkpoint(tmp_path / "two")
    write_tiny_checkpoint(tmp_path / "two")
    written = hashes(tmp_path / "one")
    assert written == hashes(tmp_path / "two")
    assert {"base/model_index.json", "refiner/model_index.json"} <= written.keys()
    assert not any(name.endswith((".bin", ".ckpt", ".pt")) for name in written)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one", "two"]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff" * 64])
def test_bytes_that_are_no_latents_are_refused(data: bytes) -> None:
    with pytest.raises(ObjectCorruptError):
        latents.unpack(data)


def test_latents_of_another_shape_or_cut_short_are_refused() -> None:
    good = latents.pack(torch.zeros(1, 4, 8, 8), [0])
    assert torch.equal(latents.unpack(good), torch.zeros(1, 4, 8, 8))
    for data in (good[:-1], latents.pack(torch.zeros(1, 3, 8, 8), [0]), latents.pack(torch.zeros(4, 8, 8), [0])):
        with pytest.raises(ObjectCorruptError):
            latents.unpack(data)
