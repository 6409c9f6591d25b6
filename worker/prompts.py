"""The prompts of a call: plain, or weighted and of any length by the library compel.

compel's syntax: https://github.com/damian0815/compel/blob/main/doc/syntax.md.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
from compel import BaseTextualInversionManager, Compel, CompelForSDXL, ReturnedEmbeddingsType
from compel.prompt_parser import PromptParser
from pyparsing import ParseException, ParserElement

from farm.errors import FarmError
from farm.spec import ImageParameters
from worker.prompt_cache import Embeddings, PromptCache

# Without its memory compel's parser takes four times as long with every open bracket: sixteen of them take minutes.
ParserElement.enable_packrat()


class PromptSyntaxError(FarmError):
    """A weighted prompt says something that cannot be understood."""


_EMBEDS = ("prompt_embeds", "pooled_prompt_embeds", "negative_prompt_embeds", "negative_pooled_prompt_embeds")


def prompt_groups(
    pipe: Any, images: Sequence[ImageParameters], kept: PromptCache
) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
    """Which of the images can share a call, by their numbers, and the embeddings that this call is given.

    Plain prompts all share one. Embeddings of weighted prompts are as long as their texts, and a call's must be of one
    length; each image is encoded alone, so that it does not depend on its neighbours. Raises PromptSyntaxError.
    """
    encoded = _plain(pipe, images, kept) if images[0].prompt_syntax == "plain" else _weighted(pipe, images, kept)
    groups: dict[int, list[int]] = defaultdict(list)
    for number, embeds in enumerate(encoded):
        groups[embeds[0].shape[1]].append(number)
    calls = []
    for group in groups.values():
        parts = zip(*(encoded[number] for number in group), strict=True)
        # Without guidance there are no negative ones.
        calls.append((group, {name: torch.cat(part) for name, part in zip(_EMBEDS, parts, strict=False)}))
    return calls


class _Text(NamedTuple):
    """Words for one or both encoders, and what else their embeddings depend on."""

    first: str
    second: str
    clip_skip: int | None
    adapters: tuple[object, ...]


def _adapters(image: ImageParameters) -> tuple[object, ...]:
    """What changes the encoders: LoRAs may, textual inversions give words new vectors."""
    return (image.loras, image.textual_inversions)


def _plain(pipe: Any, images: Sequence[ImageParameters], kept: PromptCache) -> list[Embeddings]:
    """Embeddings (1, 77, d) and pooled (1, d) of each image's prompt and, where there is guidance, its negative one."""
    shared, adapters = images[0], _adapters(images[0])
    # Without a second prompt diffusers gives the first one to both encoders; in a batch the others may have one.
    texts = [_Text(image.prompt, image.prompt_2 or image.prompt, shared.clip_skip, adapters) for image in images]
    # As diffusers has it: a UNet that takes the scale as an input, as LCM's does, needs no second pass for it.
    guided = shared.guidance_scale > 1 and pipe.unet.config.time_cond_proj_dim is None
    zeros = shared.negative_prompt is None and pipe.config.force_zeros_for_empty_prompt
    if guided and not zeros:
        # None is not "": where the model was trained so, diffusers gives it an unconditional embedding of zeros.
        # clip_skip concerns the prompt alone.
        for image in images:
            negative = image.negative_prompt or ""
            texts.append(_Text(negative, image.negative_prompt_2 or negative, None, adapters))
    encoded = kept.encoded(texts, partial(_encode, pipe))
    if not guided:
        return encoded
    negatives = [tuple(map(torch.zeros_like, one)) for one in encoded] if zeros else encoded[len(images) :]
    return [(*one, *negative) for one, negative in zip(encoded, negatives, strict=False)]


def _encode(pipe: Any, texts: list[Hashable]) -> list[Embeddings]:
    """By diffusers, which encodes a negative prompt as it does a prompt: together on a GPU.

    On a CPU alone, because there it takes as long, and the last bits of a text's embeddings depend on its company.
    """
    wanted = cast("list[_Text]", texts)
    found: dict[_Text, Embeddings] = {}
    for clip_skip in {text.clip_skip for text in wanted}:
        alike = [text for text in wanted if text.clip_skip == clip_skip]
        size = 1 if torch.device(pipe._execution_device).type == "cpu" else len(alike)
        for start in range(0, len(alike), size):
            part = alike[start : start + size]
            embeds, _, pooled, _ = pipe.encode_prompt(
                prompt=[text.first for text in part],
                prompt_2=[text.second for text in part],
                do_classifier_free_guidance=False,
                clip_skip=clip_skip,
            )
            for number, text in enumerate(part):
                # Copies: a part of a tensor would keep all of it in memory, for as long as one text is kept.
                found[text] = embeds[number : number + 1].clone(), pooled[number : number + 1].clone()
    return [found[text] for text in wanted]


def _weighted(pipe: Any, images: Sequence[ImageParameters], kept: PromptCache) -> list[Embeddings]:
    """The same with weights, (1, 77 k, d): as many chunks of 77 tokens as the longest text of an image needs.

    Where there is no negative prompt, the empty one is taken: zeros would have to be as long as the prompt.
    """
    texts = []
    for image in images:
        negative = image.negative_prompt or ""
        words = (image.prompt, image.prompt_2 or image.prompt, negative, image.negative_prompt_2 or negative)
        texts.append((words, image.clip_skip, _adapters(image)))
    return kept.encoded(texts, lambda missing: [_weigh(pipe, *cast("Any", text)[:2]) for text in missing])


def _weigh(pipe: Any, texts: tuple[str, str, str, str], clip_skip: int | None) -> Embeddings:
    for text in texts:
        _check(text)
    embeds = _compel(pipe, 0, *texts)
    if clip_skip:
        # As in diffusers it concerns neither the pooled embedding nor the negative prompt.
        embeds = (_compel(pipe, clip_skip, *texts)[0], *embeds[1:])
    if not all(torch.isfinite(tensor).all() for tensor in embeds):
        raise PromptSyntaxError(
            f"The weights of {texts[0][:100]!r} or of its negative prompt make no finite embedding; the weights "
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


def _compel(pipe: Any, clip_skip: int, prompt: str, second: str, negative: str, negative_second: str) -> Embeddings:
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
        return embeds[:1], pooled[:1], embeds[1:], pooled[1:]
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
    return found.embeds, found.pooled_embeds, found.negative_embeds, found.negative_pooled_embeds


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
