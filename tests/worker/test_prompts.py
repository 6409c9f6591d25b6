"""Weighted prompts that cannot be read (what they make is compared with compel in tests/conformance)."""

import pytest
from conformance.cases import parameters, render

from farm.spec import ImageParameters
from worker.pipelines import LoadedPipeline
from worker.prompts import PromptSyntaxError

SMALL = {"width": 64, "height": 64, "num_inference_steps": 2, "refiner_split": None, "prompt_syntax": "compel"}


def weighted(prompt: str, negative: str | None = None) -> ImageParameters:
    """Parameters as they come from the database: the door has seen them."""
    image = parameters("a fox", 1, **SMALL)
    return ImageParameters.model_construct(**{**dict(image), "prompt": prompt, "negative_prompt": negative})


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a cat.swap(dog)", "swap"),
        ("a fox withLora(ink, 1)", "withLora"),
        ('("a fox", "snow").and(1, 0.5)', "and"),
        ('("a fox", "snow").blend(1)', "cannot be read: .*mismatched"),
        ('("a fox", "snow").blend(1, -1)', "no finite embedding"),
        ("(" * 60 + "a fox", "too many brackets"),
    ],
)
def test_what_would_be_misread_is_refused(pipeline: LoadedPipeline, prompt: str, message: str) -> None:
    for image in (weighted(prompt), weighted("a fox", prompt)):
        with pytest.raises(PromptSyntaxError, match=message):
            render(pipeline, [image])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("prompt", ["(" * 16, "(a " * 12, "((a b) " * 8, "((((((a))))))"])
def test_brackets_take_no_time(pipeline: LoadedPipeline, prompt: str) -> None:
    """As it comes, compel's parser does not end within a minute for sixteen open brackets."""
    assert render(pipeline, [weighted(f"a fox {prompt}")])
