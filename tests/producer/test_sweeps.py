"""Prompt templates and sweeps: one row that stands for many images."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from farm.catalog import Catalog
from farm.errors import InvalidSubmissionError
from farm.spec import ImageParameters
from producer.expand import plan_job
from producer.intake import Intake, Row

WORDS = {"animal": ["fox", "axolotl", "bear"]}


def plan(fields: dict[str, Any], *prompts: str, words: Mapping[str, Sequence[str]] = WORDS) -> list[ImageParameters]:
    rows = [Row({"prompt": prompt}, number) for number, prompt in enumerate(prompts, start=1)]
    return plan_job(Catalog.load(), "tiny", {"seed": 100, **fields}, Intake(rows), lambda _: {}, lambda: words).images


def refusal(fields: dict[str, Any], *prompts: str) -> str:
    with pytest.raises(InvalidSubmissionError) as error:
        plan(fields, *prompts)
    return str(error.value)


def test_every_combination_in_the_order_of_the_axes_with_one_seed() -> None:
    images = plan({"sweep": {"guidance_scale": [3, 7], "steps": "10..20 step 5"}, "images_per_prompt": 2}, "a", "b")
    told = [(i.prompt, i.guidance_scale, i.num_inference_steps, i.seed) for i in images]
    assert told[:6] == [
        ("a", 3, 10, 100),
        ("a", 3, 10, 101),
        ("a", 3, 15, 100),
        ("a", 3, 15, 101),
        ("a", 3, 20, 100),
        ("a", 3, 20, 101),
    ]
    assert told[12] == ("b", 3, 10, 102)
    assert len(told) == 24


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("guidance_scale: 3, 5.5", [3.0, 5.5]),
        ("guidance_scale = 1..2 step 0.25", [1.0, 1.25, 1.5, 1.75, 2.0]),
        ("guidance_scale: 9..3 by -3", [9.0, 6.0, 3.0]),
        ('{"guidance_scale": [4]}', [4.0]),
        ("cfg_scale: 4", [4.0]),
    ],
)
def test_axes_as_people_write_them(text: str, values: list[float]) -> None:
    assert [image.guidance_scale for image in plan({"sweep": text}, "a")] == values


def test_an_axis_may_be_any_parameter() -> None:
    images = plan({"sweep": {"size": ["64x64", "128x64"], "scheduler": ["ddim"], "loras": [[], "tiny-warm:0.5"]}}, "a")
    assert [(i.width, i.scheduler, [use.name for use in i.loras]) for i in images] == [
        (64, "ddim", []),
        (64, "ddim", ["tiny-warm"]),
        (128, "ddim", []),
        (128, "ddim", ["tiny-warm"]),
    ]
    assert [i.prompt for i in plan({"sweep": "prompt: x, y\nnegative_prompt: n"}, "a")] == ["x", "y"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("stpes: 3", "sweep: 'stpes' is no parameter; did you mean steps?"),
        ("3, 4", "sweep: '3, 4' is no axis; write one such as guidance_scale: 3..9 step 2"),
        ("steps: 9..3", "turn the step around"),
        ("steps: 1..9 step 0", "turn the step around"),
        ("steps: 0..9999999", "has 10,000,000 values; at most 100,000 are taken"),
        ("steps: 1..400; guidance_scale: 1..400", "has 160,000 combinations"),
        ("steps: 3; steps: 4", "names steps twice"),
        ({"steps": []}, "steps has no values"),
        (["steps"], "must be an object"),
        ("steps: 5, 2000", "num_inference_steps: .*less than or equal to 1000"),
        ("refiner_split: 0.5, 0.001", "refiner_split: .*leaves the base without a step"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(sweep: Any, message: str) -> None:
    with pytest.raises(InvalidSubmissionError, match=message):
        plan({"sweep": sweep}, "a")


def test_templates_are_opt_in() -> None:
    assert [image.prompt for image in plan({}, "a {red|blue} __animal__")] == ["a {red|blue} __animal__"]


def test_a_template_stands_for_all_its_prompts_or_for_some() -> None:
    images = plan({"templates": "all"}, "a {red|blue} __animal__", "100% wool # not a template")
    assert [image.prompt for image in images] == [
        "a red fox",
        "a red axolotl",
        "a red bear",
        "a blue fox",
        "a blue axolotl",
        "a blue bear",
        "100% wool # not a template",
    ]
    assert [image.seed for image in images] == list(range(100, 107))
    drawn = plan({"templates": "random", "template_samples": 20}, "a {red|blue} __animal__")
    assert drawn == plan({"templates": "random", "template_samples": 20}, "a {red|blue} __animal__")
    prompts = {image.prompt for image in drawn}
    assert 3 <= len(prompts) <= 6
    assert prompts < {image.prompt for image in images}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a __bird__", "line 1, prompt: names the list 'bird'; the lists of words are animal"),
        ("a {red|blue", "line 1, prompt: has braces that are not closed"),
        ("{" * 11 + "}" * 11, "more than 10 braces in braces"),
        ("{|}", "stands for an empty prompt too"),
        ("100% {red|blue}", "is no template that can be read"),
        ("{1|2}" * 20, "stands for more than 10,000 prompts; take templates random"),
    ],
)
def test_a_template_that_cannot_be_is_refused_with_its_line(prompt: str, message: str) -> None:
    assert message in refusal({"templates": "all"}, prompt)


def test_a_test_run_takes_the_first_images_of_the_same_job() -> None:
    whole = plan({"sweep": "steps: 5, 10"}, "a", "b", "c")
    assert plan({"sweep": "steps: 5, 10", "first": 3}, "a", "b", "c") == whole[:3]


def test_a_job_has_its_limit() -> None:
    message = refusal({"sweep": "guidance_scale: 1..100 step 0.01", "images_per_prompt": 1000}, "a")
    assert "would have 9,901,000 images, and at most 1,000,000 are taken" in message
