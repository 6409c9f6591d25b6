"""The prompts of a call: plain, or weighted and of any length by the library compel.

compel's syntax: https://github.com/damian0815/compel/blob/main/doc/syntax.md.
"""

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from compel import BaseTextualInversionManager, Compel, CompelForSDXL, ReturnedEmbeddingsType
from compel.prompt_parser import PromptParser
from pyparsing import ParseException, ParserElement

from farm.errors import FarmError
from farm.spec import ImageParameters

# Without its memory compel's parser takes four times as long with every open bracket: sixteen of them take minutes.
ParserElement.enable_packrat()


class PromptSyntaxError(FarmError):
    """A weighted prompt says something that cannot be understood."""


def prompt_groups(pipe: Any, images: Sequence[ImageParameters]) -> list[tuple[list[int], dict[str, Any]]]:
    """Which of the images can share a call, by their numbers, and what that call is given for their prompts.

    Plain prompts all share one. Embeddings of weighted prompts are as long as their texts, and a call's must be of one
    length; each image is encoded alone, so that it does not depend on its neighbours. Raises PromptSyntaxError.
    """
    if images[0].prompt_syntax == "plain":
        return [(list(range(len(images))), _plain(images))]
    with torch.no_grad():
        encoded = [_weighted(pipe, image) for image in images]
    groups: dict[int, list[int]] = defaultdict(list)
    for number, embeds in enumerate(encoded):
        groups[embeds["prompt_embeds"].shape[1]].append(number)
    return [
        (group, {name: torch.cat([encoded[number][name] for number in group]) for name in encoded[0]})
        for group in groups.values()
    ]


def _plain(images: Sequence[ImageParameters]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"prompt": [image.prompt for image in images]}
    # Without a second prompt diffusers gives the first one to both encoders; in a batch the others may have one.
    arguments["prompt_2"] = [image.prompt_2 or image.prompt for image in images]
    if images[0].negative_prompt is not None:
        # None is not "": diffusers gives it an unconditional embedding of zeros.
        arguments["negative_prompt"] = [image.negative_prompt for image in images]
        arguments["negative_prompt_2"] = [image.negative_prompt_2 or image.negative_prompt for image in images]
    return arguments


def _weighted(pipe: Any, image: ImageParameters) -> dict[str, torch.Tensor]:
    """Embeddings (1, 77 k, d) of one image's prompts, with as many chunks of 77 tokens as the longest needs.

    Where there is no negative prompt, the empty one is taken: zeros would have to be as long as the prompt.
    """
    negative = image.negative_prompt or ""
    texts = (image.prompt, image.prompt_2 or image.prompt, negative, image.negative_prompt_2 or negative)
    for text in texts:
        _check(text)
    embeds = _compel(pipe, 0, *texts)
    if image.clip_skip:
        # As in diffusers it concerns neither the pooled embedding nor the negative prompt.
        embeds["prompt_embeds"] = _compel(pipe, image.clip_skip, *texts)["prompt_embeds"]
    if not all(torch.isfinite(tensor).all() for tensor in embeds.values()):
        raise PromptSyntaxError(
            f"The weights of {image.prompt[:100]!r} or of its negative prompt make no finite embedding; the weights "
            f"of a blend must not add up to 0."
        )
    return embeds


def _check(text: str) -> None:
    """Raise PromptSyntaxError for what compel cannot parse, and for what it parses but would silently leave out."""
    try:
        parsed = Compel.parse_prompt_string(text)
    except (ParseException, PromptParser.ParsingException, PromptParser.UnrecognizedOperatorException) as error:
        raise PromptSyntaxError(f"The weighted prompt {text[:100]!r} cannot be read: {error}") from error
    except RecursionError:
        raise PromptSyntaxError(f"The weighted prompt {text[:100]!r} has too many brackets in brackets.") from None
    if parsed.lora_weights:
        raise PromptSyntaxError("withLora() has no effect in a prompt; name LoRAs in the parameter loras.")
    if any(weight != 1 for weight in parsed.weights):
        # compel 2.5 fails over them when it is asked for the pooled embedding too, as SDXL needs it.
        raise PromptSyntaxError('and() takes no weights here; weight its parts: ("(a fox)1.2", "in the snow").and().')
    if any(prompt.wants_cross_attention_control for prompt in parsed.prompts):
        raise PromptSyntaxError("swap() is not possible here; write the prompt with the word that is meant.")


def _compel(
    pipe: Any, clip_skip: int, prompt: str, second: str, negative: str, negative_second: str
) -> dict[str, torch.Tensor]:
    if pipe.text_encoder is None:
        # The refiner has the second encoder alone.
        compel = Compel(
            tokenizer=pipe.tokenizer_2,
            text_encoder=_Skipping(pipe.text_encoder_2, clip_skip),
            textual_inversion_manager=_Vectors(pipe.tokenizer_2),
            returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
            truncate_long_prompts=False,
            requires_pooled=True,
        )
        embeds, pooled = compel([second, negative_second])
        return _named(embeds[:1], pooled[:1], embeds[1:], pooled[1:])
    both = CompelForSDXL(
        SimpleNamespace(
            tokenizer=pipe.tokenizer,
            text_encoder=_Skipping(pipe.text_encoder, clip_skip),
            tokenizer_2=pipe.tokenizer_2,
            text_encoder_2=_Skipping(pipe.text_encoder_2, clip_skip),
        )
    )
    for compel in (both.compel_1, both.compel_2):
        provider = compel.conditioning_provider
        provider.textual_inversion_manager = _Vectors(provider.tokenizer)
    found = both(prompt, second, negative_prompt=negative, negative_style_prompt=negative_second)
    return _named(found.embeds, found.pooled_embeds, found.negative_embeds, found.negative_pooled_embeds)


def _named(
    embeds: torch.Tensor, pooled: torch.Tensor, negative: torch.Tensor, negative_pooled: torch.Tensor
) -> dict[str, torch.Tensor]:
    return {
        "prompt_embeds": embeds,
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": negative,
        "negative_pooled_prompt_embeds": negative_pooled,
    }


class _Skipping:
    """A text encoder whose last layers are not seen: compel reads the last layer but one, and knows no other."""

    def __init__(self, text_encoder: Any, clip_skip: int) -> None:
        self._text_encoder = text_encoder
        self._clip_skip = clip_skip
        self.device = text_encoder.device
        self.dtype = text_encoder.dtype

    def __call__(self, *args: Any, **options: Any) -> Any:
        output = self._text_encoder(*args, **options)
        if self._clip_skip and output.hidden_states is not None:
            output.hidden_states = output.hidden_states[: -self._clip_skip]
        return output


class _Vectors(BaseTextualInversionManager):  # type: ignore[misc]
    """Puts the further vectors of a textual inversion after its first, as diffusers does with texts.

    compel's own manager decodes and encodes the text again for this, with the first tokenizer for both encoders,
    which a refiner does not have.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def expand_textual_inversion_token_ids_if_necessary(self, token_ids: list[int]) -> list[int]:
        added = self._tokenizer.added_tokens_encoder
        words = {number: word for word, number in added.items()}
        expanded = []
        for token_id in token_ids:
            expanded.append(token_id)
            further = 1
            while token_id in words and f"{words[token_id]}_{further}" in added:
                expanded.append(added[f"{words[token_id]}_{further}"])
                further += 1
        return expanded
