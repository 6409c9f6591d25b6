"""The stages against plain diffusers: equal bit for bit one by one, within 1/255 in batches."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import reference
from conformance.cases import parameters, quiet
from PIL import Image

from farm.spec import ImageParameters
from worker import latents, stages
from worker.pipelines import LoadedPipeline


def render(pipeline: LoadedPipeline, images: list[ImageParameters]) -> list[Image.Image]:
    if images[0].refiner_split is None:
        return stages.render_base_only(pipeline, images, quiet)
    sent = latents.pack(stages.render_base(pipeline, images, quiet), range(len(images)))
    return stages.render_refiner(pipeline, images, latents.unpack(sent), quiet)


@cache
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
    parameters("no multiple of 64", 10, width=200, height=264, num_inference_steps=3, refiner_split=0.5),
    parameters("without a refiner", 4, refiner_split=None),
    parameters("without a refiner, negative", 4, refiner_split=None, negative_prompt="grey", width=192),
    parameters("negative", 5, negative_prompt="blurry, dark"),
    parameters("empty negative", 6, negative_prompt=""),
    parameters("Füchse und 狐 " + "many words " * 60, 7, num_inference_steps=4),
    parameters("no guidance", 8, guidance_scale=1.0, num_inference_steps=20, refiner_split=0.9),
    parameters("the largest seed", 2**63 - 1, num_inference_steps=2, refiner_split=0.5),
]


@pytest.mark.parametrize("image", CASES, ids=lambda image: image.prompt[:20])
def test_one_by_one_every_pixel_is_that_of_plain_diffusers(
    pipeline: LoadedPipeline, models_directory: Path, image: ImageParameters
) -> None:
    (picture,) = render(pipeline, [image])
    assert picture.size == (image.width, image.height)
    assert np.array_equal(np.asarray(picture), np.asarray(expected(models_directory, image)))


@pytest.mark.parametrize(
    ("count", "shared"),
    [
        (2, {}),
        (3, {"refiner_split": None}),
        (4, {"width": 192, "negative_prompt": "grey"}),
        (5, {}),
    ],
    ids=str,
)
def test_in_a_batch_no_channel_differs_by_more_than_one(
    pipeline: LoadedPipeline, models_directory: Path, count: int, shared: dict[str, Any]
) -> None:
    images = [parameters(f"prompt number {n}", 100 + 7 * n, **shared) for n in range(count)]
    for image, picture in zip(images, render(pipeline, images), strict=True):
        difference = np.asarray(picture, int) - np.asarray(expected(models_directory, image), int)
        assert np.abs(difference).max() <= 1


def test_negative_prompts_of_a_batch_stay_with_their_images(pipeline: LoadedPipeline, models_directory: Path) -> None:
    images = [parameters("a fox", 1, negative_prompt=text, num_inference_steps=4) for text in ("snow", "", "a dog")]
    pictures = render(pipeline, images)
    for image, picture in zip(images, pictures, strict=True):
        difference = np.asarray(picture, int) - np.asarray(expected(models_directory, image), int)
        assert np.abs(difference).max() <= 1
    assert len({picture.tobytes() for picture in pictures}) == 3
