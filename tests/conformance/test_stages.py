"""The stages against plain diffusers: equal bit for bit one by one, within 1/255 in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance.cases import LANDSCAPE, MASK, PORTRAIT, RING, parameters, render
from conformance.plain import expected
from diffusers.pipelines.stable_diffusion_xl.watermark import WATERMARK_BITS
from imwatermark import WatermarkDecoder
from PIL import Image

from farm.schedulers import SCHEDULERS
from farm.spec import ImageParameters
from worker.pipelines import LoadedPipeline


def assert_equal(picture: Image.Image, reference_picture: Image.Image) -> None:
    assert picture.size == reference_picture.size
    assert np.array_equal(np.asarray(picture), np.asarray(reference_picture))


SMALL = {"width": 192, "height": 128, "num_inference_steps": 6, "refiner_split": 0.6}
ALONE = {**SMALL, "refiner_split": None}
SECOND_WAY = {**ALONE, "refiner_strength": 0.5, "refiner_steps": 4}
IMAGE = {"image": LANDSCAPE, "strength": 0.7}
INPAINT = {"image": LANDSCAPE, "mask_image": MASK, "strength": 0.9}

CASES = {
    "documentation": parameters("a red fox in the snow", 0),
    "even split": parameters("an owl at night", 2**40, num_inference_steps=13, refiner_split=0.5),
    "wide": parameters("wide", 3, width=320, height=192, num_inference_steps=5, refiner_split=0.7),
    "no multiple of 64": parameters("a", 10, width=200, height=264, num_inference_steps=3, refiner_split=0.5),
    "base alone": parameters("without a refiner", 4, refiner_split=None),
    "base alone, negative": parameters("a", 4, refiner_split=None, negative_prompt="grey", width=192),
    "negative": parameters("negative", 5, negative_prompt="blurry, dark"),
    "empty negative": parameters("empty negative", 6, negative_prompt=""),
    "long prompt": parameters("Füchse und 狐 " + "many words " * 60, 7, **SMALL),
    "no guidance": parameters("no guidance", 8, guidance_scale=1.0, num_inference_steps=20, refiner_split=0.9),
    "largest seed": parameters("the largest seed", 2**63 - 1, num_inference_steps=2, refiner_split=0.5),
    # Text to image: what else the pipelines take.
    "guidance rescale": parameters("a fox", 1, **SMALL, guidance_rescale=0.7),
    "clip skip": parameters("a fox", 1, **SMALL, clip_skip=1),
    "eta": parameters("a fox", 1, **SMALL, scheduler="ddim", eta=0.7),
    "timesteps": parameters(
        "a fox", 1, **{**SMALL, "num_inference_steps": None}, timesteps=[999, 845, 730, 587, 443, 310, 193, 116, 53, 13]
    ),
    "sigmas": parameters("a fox", 1, **{**SMALL, "num_inference_steps": None}, sigmas=[14.6, 6.3, 3.8, 1.2, 0.3, 0]),
    "trailing": parameters("a fox", 1, **SMALL, scheduler_options={"timestep_spacing": "trailing"}),
    "zero snr": parameters(
        "a fox",
        1,
        **SMALL,
        scheduler="ddim",
        scheduler_options={"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    # Image to image and inpainting, with each way to use the refiner.
    **{
        f"{kind}, {way}": parameters("a small house", 11, **picture, **refiner)
        for kind, picture in (("image", IMAGE), ("inpaint", INPAINT))
        for way, refiner in (("base alone", ALONE), ("ensemble", SMALL), ("second way", SECOND_WAY))
    },
    "text, second way": parameters("a small house", 11, **SECOND_WAY, negative_prompt="trees"),
    "image of another size": parameters("a", 1, **SMALL, image=PORTRAIT, strength=0.8),
    "inpaint, full strength": parameters("a", 1, **SMALL, **{**INPAINT, "strength": 1.0}),
    "inpaint, default strength": parameters("a", 1, **SMALL, image=PORTRAIT, mask_image=RING),
    "inpaint, crop": parameters("a door", 1, **ALONE, **INPAINT, padding_mask_crop=16),
    # Micro-conditioning.
    "sizes": parameters(
        "a fox",
        2,
        **SMALL,
        original_size=(512, 768),
        target_size=(1024, 1024),
        crops_coords_top_left=(16, 128),
        negative_original_size=(64, 64),
        negative_target_size=(96, 128),
        negative_crops_coords_top_left=(8, 4),
    ),
    "scores": parameters("a fox", 2, **SMALL, aesthetic_score=9.0, negative_aesthetic_score=1.0),
    "sizes and scores, inpaint": parameters(
        "a fox", 2, **SMALL, **INPAINT, original_size=(512, 768), negative_target_size=(96, 128), aesthetic_score=3.0
    ),
    # Two prompts.
    "two prompts": parameters(
        "a fox", 3, **SMALL, prompt_2="oil painting", negative_prompt="dark", negative_prompt_2="photograph"
    ),
    "two prompts, image": parameters("a fox", 3, **SMALL, **IMAGE, prompt_2="oil painting"),
    # Schedulers, the same in both stages.
    **{
        f"scheduler {entry.name}": parameters(
            "a tree", 5, **(SMALL if entry.can_split else SECOND_WAY), scheduler=entry.name
        )
        for entry in SCHEDULERS.values()
    },
    **{
        f"scheduler {name}, {kind}": parameters("a tree", 5, **SMALL, **picture, scheduler=name)
        for name in ("dpmpp_2m_karras", "euler_a", "dpmpp_sde", "heun", "lcm")
        for kind, picture in (("image", IMAGE), ("inpaint", INPAINT))
    },
    # diffusers' default: there, where the package is installed.
    "watermark": parameters("a fox", 1, num_inference_steps=4, watermark=True),
    "watermark by default": parameters("a fox", 1, num_inference_steps=4, refiner_split=None, watermark=None),
    "watermark too large": parameters("a fox", 1, **SMALL, watermark=None),
    "scheduler options": parameters(
        "a tree", 5, **SMALL, scheduler="dpmpp_2m", scheduler_options={"solver_order": 3, "euler_at_final": True}
    ),
}


@pytest.mark.parametrize("image", CASES.values(), ids=CASES)
def test_one_by_one_every_pixel_is_that_of_plain_diffusers(
    pipeline: LoadedPipeline, models_directory: Path, image: ImageParameters
) -> None:
    (picture,) = render(pipeline, [image])
    assert_equal(picture, expected(models_directory, image))


@pytest.mark.parametrize("shared", [SMALL, ALONE, {**ALONE, **INPAINT}], ids=["refined", "base alone", "inpaint"])
def test_more_than_eight_bits_and_latents_are_those_of_plain_diffusers(
    pipeline: LoadedPipeline, models_directory: Path, shared: dict[str, Any]
) -> None:
    fine, raw = (parameters("a fox", 1, **shared, output_format=name) for name in ("png16", "latents"))
    assert np.array_equal(render(pipeline, [fine])[0], expected(models_directory, fine, "np"))
    assert torch.equal(render(pipeline, [raw])[0], expected(models_directory, raw, "latent"))


def test_the_watermark_can_be_read(pipeline: LoadedPipeline) -> None:
    decoder = WatermarkDecoder("bits", len(WATERMARK_BITS))

    def bits(watermark: bool | None) -> list[bool]:
        image = parameters("a fox", 1, width=512, height=512, num_inference_steps=2, refiner_split=None)
        picture = render(pipeline, [image.model_copy(update={"watermark": watermark})])[0]
        return [bool(bit) for bit in decoder.decode(np.asarray(picture)[:, :, ::-1], "dwtDct")]

    wanted = [bool(bit) for bit in WATERMARK_BITS]
    matching = {wish: sum(a == b for a, b in zip(bits(wish), wanted, strict=True)) for wish in (True, None, False)}
    assert matching[True] == matching[None] > 40 > matching[False]


def test_the_cases_differ_from_each_other(models_directory: Path) -> None:
    """What does nothing would be equal to plain diffusers too."""
    plain = parameters("a fox", 1, **SMALL)
    for changes in (
        {"guidance_rescale": 0.7},
        {"clip_skip": 1},
        {"prompt_2": "oil painting"},
        {"original_size": (512, 768)},
        {"aesthetic_score": 9.0},
        {"scheduler": "dpmpp_2m"},
    ):
        changed = parameters("a fox", 1, **SMALL, **changes)
        assert expected(models_directory, changed).tobytes() != expected(models_directory, plain).tobytes(), changes


BATCHES: dict[str, list[ImageParameters]] = {
    "ensemble": [parameters(f"prompt number {n}", 100 + 7 * n) for n in range(5)],
    "base alone": [parameters(f"prompt number {n}", 100 + 7 * n, refiner_split=None) for n in range(3)],
    "negative": [parameters(f"prompt number {n}", 100 + 7 * n, width=192, negative_prompt="grey") for n in range(4)],
    "second way": [parameters(f"prompt number {n}", n, **SECOND_WAY) for n in range(3)],
    "image": [
        parameters("a", n, **SMALL, image=image, strength=0.8)
        for n, image in enumerate((LANDSCAPE, PORTRAIT, LANDSCAPE))
    ],
    "inpaint": [
        parameters("a", n, **SMALL, image=image, mask_image=mask)
        for n, (image, mask) in enumerate(((LANDSCAPE, MASK), (PORTRAIT, RING), (LANDSCAPE, RING)))
    ],
    "inpaint, base alone": [
        parameters("a", n, **ALONE, image=LANDSCAPE, mask_image=mask, strength=1.0)
        for n, mask in enumerate((MASK, RING))
    ],
    "some with a second prompt": [
        parameters("a fox", 3, **SMALL, negative_prompt="dark"),
        parameters("a fox", 3, **SMALL, prompt_2="oil", negative_prompt="dark", negative_prompt_2="photograph"),
    ],
    **{
        f"scheduler {entry.name}": [
            parameters(f"a tree {n}", n, **(SMALL if entry.can_split else SECOND_WAY), scheduler=entry.name)
            for n in range(2)
        ]
        for entry in SCHEDULERS.values()
        if not entry.alone
    },
}


@pytest.mark.parametrize("images", BATCHES.values(), ids=BATCHES)
def test_in_a_batch_no_channel_differs_by_more_than_one(
    pipeline: LoadedPipeline, models_directory: Path, images: list[ImageParameters]
) -> None:
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
