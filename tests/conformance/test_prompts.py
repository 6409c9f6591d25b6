"""Weighted and long prompts by compel, as its documentation shows it with plain diffusers."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from compel import Compel, CompelForSDXL, ReturnedEmbeddingsType
from conformance import reference
from conformance.cases import LANDSCAPE, parameters, render
from PIL import Image

from worker.pipelines import LoadedPipeline

SMALL = {"width": 192, "height": 128, "num_inference_steps": 6, "refiner_split": 0.6}
#: Beyond the 77 tokens of an encoder.
LONG = "a castle on a hill, " * 20


def expected(models: Path, seed: int, prompt: str, negative: str, style: str, split: float | None) -> Image.Image:
    base = reference.load(diffusers.StableDiffusionXLPipeline, models / "tiny" / "base", watermark=False)
    conditioning = CompelForSDXL(base)(
        prompt, negative_prompt=negative, style_prompt=style, negative_style_prompt=negative
    )
    common: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": 5.0}
    result = base(
        prompt_embeds=conditioning.embeds,
        pooled_prompt_embeds=conditioning.pooled_embeds,
        negative_prompt_embeds=conditioning.negative_embeds,
        negative_pooled_prompt_embeds=conditioning.negative_pooled_embeds,
        width=192,
        height=128,
        generator=torch.Generator("cpu").manual_seed(seed),
        **common,
        **({} if split is None else {"denoising_end": split, "output_type": "latent"}),
    ).images
    if split is None:
        return result[0]
    refiner = reference.load(diffusers.StableDiffusionXLImg2ImgPipeline, models / "tiny" / "refiner", watermark=False)
    compel = Compel(
        tokenizer=refiner.tokenizer_2,
        text_encoder=refiner.text_encoder_2,
        returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=True,
        truncate_long_prompts=False,
    )
    embeds, pooled = compel([style, negative])
    return refiner(
        prompt_embeds=embeds[:1],
        pooled_prompt_embeds=pooled[:1],
        negative_prompt_embeds=embeds[1:],
        negative_pooled_prompt_embeds=pooled[1:],
        image=result,
        denoising_start=split,
        generator=torch.Generator("cpu").manual_seed(seed),
        **common,
    ).images[0]


@pytest.mark.parametrize("split", [0.6, None], ids=["refined", "base alone"])
@pytest.mark.parametrize(
    ("prompt", "negative", "style"),
    [
        ("a (red)1.5 fox in the snow--", "blurry", None),
        ("a fox", None, "an (oil)1.3 painting"),
        (LONG + "and a dragon++", "grey", None),
        ("a fox", LONG, None),
    ],
    ids=["weights", "second prompt", "long", "long negative"],
)
def test_pictures_are_those_of_compel_with_plain_diffusers(
    pipeline: LoadedPipeline,
    models_directory: Path,
    prompt: str,
    negative: str | None,
    style: str | None,
    split: float | None,
) -> None:
    image = parameters(
        prompt,
        7,
        **{**SMALL, "refiner_split": split},
        prompt_2=style,
        negative_prompt=negative,
        prompt_syntax="compel",
    )
    picture = render(pipeline, [image])[0]
    wanted = expected(models_directory, 7, prompt, negative or "", style or prompt, split)
    assert np.array_equal(np.asarray(picture), np.asarray(wanted))


def test_weights_and_the_end_of_a_long_prompt_matter_only_where_asked_for(pipeline: LoadedPipeline) -> None:
    def picture(prompt: str, syntax: str, **more: Any) -> bytes:
        data: bytes = render(pipeline, [parameters(prompt, 7, **SMALL, prompt_syntax=syntax, **more)])[0].tobytes()
        return data

    assert picture("a (red)1.5 fox", "compel") != picture("a red fox", "compel")
    assert picture(LONG + "a dragon", "compel") != picture(LONG + "an owl", "compel")
    assert picture(LONG + "a dragon", "plain") == picture(LONG + "an owl", "plain")
    assert picture("a (red)1.5 fox", "compel", image=LANDSCAPE, strength=0.7) != picture(
        "a red fox", "compel", image=LANDSCAPE, strength=0.7
    )


LENGTHS = ["a fox", LONG, "an (owl)1.4", LONG + "a dragon++", "a cat"]


def test_in_a_batch_prompts_of_any_length_keep_their_places(pipeline: LoadedPipeline) -> None:
    """A call's embeddings are of one length, so that the batch takes two calls in each stage."""
    images = [parameters(prompt, seed, **SMALL, prompt_syntax="compel") for seed, prompt in enumerate(LENGTHS)]
    alone = [np.asarray(render(pipeline, [image])[0], int) for image in images]
    for together, single in zip(render(pipeline, images), alone, strict=True):
        assert np.abs(np.asarray(together, int) - single).max() <= 1


@pytest.mark.parametrize("clip_skip", [None, 1, 2])
@pytest.mark.parametrize("split", [0.6, None], ids=["refined", "base alone"])
def test_without_weights_the_picture_is_that_of_the_plain_prompt(
    pipeline: LoadedPipeline, clip_skip: int | None, split: float | None
) -> None:
    plain, weighted = (
        render(
            pipeline,
            [
                parameters(
                    "a <glyph> in the snow",
                    3,
                    **{**SMALL, "refiner_split": split},
                    negative_prompt="dark and old",
                    clip_skip=clip_skip,
                    textual_inversions="tiny-glyph",
                    prompt_syntax=syntax,
                )
            ],
        )[0]
        for syntax in ("plain", "compel")
    )
    assert np.array_equal(np.asarray(plain), np.asarray(weighted))
