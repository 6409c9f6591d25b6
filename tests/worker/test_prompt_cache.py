"""Each text is encoded once, as long as nothing changes the encoders."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from conformance.cases import parameters, render

from farm.states import Stage
from worker import prompt_cache
from worker.pipelines import LoadedPipeline
from worker.prompt_cache import PromptCache
from worker.prompts import prompt_groups

SMALL = {"width": 64, "height": 64, "num_inference_steps": 2, "refiner_split": None}


@contextmanager
def counted(pipeline: LoadedPipeline, name: str = "text_encoder_2") -> Iterator[list[int]]:
    """How many texts an encoder reads in each of its calls."""
    calls: list[int] = []
    encoder = getattr(pipeline.base, name)
    hook = encoder.register_forward_pre_hook(lambda _module, inputs: calls.append(len(inputs[0])))
    try:
        yield calls
    finally:
        hook.remove()


@pytest.fixture
def fresh(pipeline: LoadedPipeline) -> LoadedPipeline:
    for stage in Stage:
        pipeline.prompts[stage] = PromptCache()
    return pipeline


def test_prompts_and_negative_prompts_are_encoded_once(fresh: LoadedPipeline) -> None:
    with counted(fresh) as calls:
        batch = [parameters(prompt, seed, negative_prompt="grey", **SMALL) for seed, prompt in enumerate("aba")]
        render(fresh, batch)
        # On a CPU one by one: two prompts, and what they have in common not to show.
        assert calls == [1, 1, 1]
        render(fresh, [parameters("b", 7, negative_prompt="grey", **SMALL)])
        assert calls == [1, 1, 1]
        render(fresh, [parameters("b", 7, negative_prompt="blue", **SMALL)])
        assert calls == [1, 1, 1, 1]


def test_without_guidance_or_a_negative_prompt_none_is_encoded(fresh: LoadedPipeline) -> None:
    with counted(fresh) as calls:
        render(fresh, [parameters("a", 1, guidance_scale=1.0, negative_prompt="grey", **SMALL)])
        # SDXL's base was trained with zeros in place of an empty text.
        render(fresh, [parameters("b", 1, **SMALL)])
    assert calls == [1, 1]


def test_a_unet_that_takes_the_scale_as_an_input_gets_no_negative_prompt(fresh: LoadedPipeline) -> None:
    image = parameters("a", 1, guidance_scale=8.0, negative_prompt="grey", **SMALL)
    # As diffusers' pipelines decide it, and LCM's UNets are configured.
    fresh.base.unet.register_to_config(time_cond_proj_dim=256)
    try:
        with counted(fresh) as calls:
            ((_, embeds),) = prompt_groups(fresh.base, [image], PromptCache())
    finally:
        fresh.base.unet.register_to_config(time_cond_proj_dim=None)
    assert calls == [1]
    assert set(embeds) == {"prompt_embeds", "pooled_prompt_embeds"}


@pytest.mark.parametrize(
    "change",
    [{"clip_skip": 1}, {"prompt_2": "oil"}, {"loras": "tiny-warm:0.8"}, {"textual_inversions": ["tiny-glyph"]}],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_embeddings_is_encoded_anew(fresh: LoadedPipeline, change: dict[str, object]) -> None:
    with counted(fresh) as calls:
        render(fresh, [parameters("a <glyph> fox", 1, **SMALL)])
        render(fresh, [parameters("a <glyph> fox", 1, **SMALL, **change)])
        assert calls == [1, 1]
        render(fresh, [parameters("a <glyph> fox", 1, **SMALL)])
        assert calls == [1, 1]


def test_weighted_prompts_are_kept_too(fresh: LoadedPipeline) -> None:
    weighted = parameters("a (red)1.3 fox", 1, prompt_syntax="compel", **SMALL)
    with counted(fresh) as calls:
        first = render(fresh, [weighted])
        before = len(calls)
        again = render(fresh, [weighted])
    assert before > 0
    assert len(calls) == before
    assert first[0].tobytes() == again[0].tobytes()


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "MAX_KEPT", 2)
    cache, encoded = PromptCache(), []

    def encode(texts: list[object]) -> list[tuple[torch.Tensor, ...]]:
        encoded.extend(texts)
        return [(torch.zeros(1),) for _ in texts]

    for texts in ("ab", "a", "c", "a", "b", "abcd"):
        assert len(cache.encoded(texts, encode)) == len(texts)
    # "a" was asked for again before "c" came; a call that needs more than are kept gets all of them.
    assert "".join(encoded) == "abcbcd"
