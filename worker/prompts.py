"""The prompts of a call: plain, or weighted and of any length by the library compel."""

from collections.abc import Sequence
from typing import Any

import torch
from compel import Compel, CompelForSDXL, ReturnedEmbeddingsType

from farm.spec import ImageParameters


def prompt_arguments(pipe: Any, images: Sequence[ImageParameters]) -> dict[str, Any]:
    """What the pipeline's call is given for its prompts."""
    return _weighted(pipe, images[0]) if images[0].prompt_syntax == "compel" else _plain(images)


def _plain(images: Sequence[ImageParameters]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"prompt": [image.prompt for image in images]}
    # Without a second prompt diffusers gives the first one to both encoders; in a batch the others may have one.
    arguments["prompt_2"] = [image.prompt_2 or image.prompt for image in images]
    if images[0].negative_prompt is not None:
        # None is not "": diffusers gives it an unconditional embedding of zeros.
        arguments["negative_prompt"] = [image.negative_prompt for image in images]
        arguments["negative_prompt_2"] = [image.negative_prompt_2 or image.negative_prompt for image in images]
    return arguments


def _weighted(pipe: Any, image: ImageParameters) -> dict[str, Any]:
    """Embeddings (1, 77 k, d) of one image's prompts, with as many chunks of 77 tokens as the longest needs.

    Where there is no negative prompt, the empty one is taken: zeros would have to be as long as the prompt.
    """
    negative = image.negative_prompt or ""
    second, negative_second = image.prompt_2 or image.prompt, image.negative_prompt_2 or negative
    if pipe.text_encoder is None:
        # The refiner has the second encoder alone.
        compel = Compel(
            tokenizer=pipe.tokenizer_2,
            text_encoder=pipe.text_encoder_2,
            returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
            truncate_long_prompts=False,
            requires_pooled=True,
        )
        embeds, pooled = compel([second, negative_second])
        return _embeds(embeds[:1], pooled[:1], embeds[1:], pooled[1:])
    found = CompelForSDXL(pipe)(image.prompt, second, negative_prompt=negative, negative_style_prompt=negative_second)
    return _embeds(found.embeds, found.pooled_embeds, found.negative_embeds, found.negative_pooled_embeds)


def _embeds(
    embeds: torch.Tensor, pooled: torch.Tensor, negative: torch.Tensor, negative_pooled: torch.Tensor
) -> dict[str, torch.Tensor]:
    return {
        "prompt_embeds": embeds,
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": negative,
        "negative_pooled_prompt_embeds": negative_pooled,
    }
