"""What cannot be rendered is refused at the door, with the field to change and the remedy; nothing is written."""

from typing import Any

import pytest
from conformance.cases import LANDSCAPE, MASK, landscape, mask, png
from sqlalchemy import Engine, func, select

from farm.adapters import Lora
from farm.catalog import Catalog
from farm.errors import InvalidSubmissionError
from farm.models import Job
from farm.settings import Settings
from farm.storage import open_store
from producer.inputs import accept_input
from producer.intake import Intake, Row
from producer.submit import submit_job

CATALOG = Catalog(Catalog.load(), loras=[Lora(name="other", path="/m", pipelines=("sdxl-1.0",))])
MISSING = "sha256:" + "0" * 64
CONTROL = {"controlnet": "tiny-edges", "control_image": LANDSCAPE}

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "inpaint without mask": ({"image": LANDSCAPE, "padding_mask_crop": 8}, "padding_mask_crop", "needs mask_image"),
    "mask without image": ({"mask_image": MASK}, "image", "is missing"),
    "strength without image": ({"strength": 0.5}, "strength", "add image, or leave strength out"),
    "picture that was not uploaded": ({"image": "house.png"}, "image", "was not uploaded"),
    "picture that is not there": ({"image": MISSING}, "image", "is not in the store; upload it first"),
    "controlnet without image": ({"controlnet": "tiny-edges"}, "control_image", "give one for each"),
    "image without controlnet": ({"control_image": LANDSCAPE}, "controlnet", "is missing"),
    "scales for no net": ({"controlnet_conditioning_scale": 0.5}, "controlnet_conditioning_scale", "0 in controlnet"),
    "control that ends before it starts": (
        {**CONTROL, "control_guidance_start": 0.5, "control_guidance_end": 0.2},
        "control_guidance_end",
        "must be above control_guidance_start",
    ),
    "unknown controlnet": ({**CONTROL, "controlnet": "canny"}, "controlnet", "There is no ControlNet 'canny'"),
    "ensemble diffusers cannot": (
        {**CONTROL, "image": LANDSCAPE, "strength": 0.9},
        "refiner_split",
        "take refiner_strength, or none",
    ),
    "ip adapter without picture": ({"ip_adapter": "tiny-look"}, "ip_adapter_image", "go together"),
    "picture without ip adapter": ({"ip_adapter_image": LANDSCAPE}, "ip_adapter", "go together"),
    "lora of another architecture": ({"loras": "other"}, "loras", "was made for sdxl-1.0, not for tiny"),
    "unknown lora": ({"loras": "nothing:0.5"}, "loras", "There is no LoRA 'nothing'"),
    "lora twice": ({"loras": "other, other:0.5"}, "loras", "names one twice"),
    "split a scheduler cannot": ({"scheduler": "pndm"}, "refiner_split", "cannot hand over in mid-schedule"),
    "unknown scheduler": ({"scheduler": "eulr"}, "scheduler", "the schedulers are euler"),
    "option of another scheduler": (
        {"scheduler": "euler_a", "scheduler_options": {"solver_order": 2}},
        "scheduler_options",
        "has no option solver_order; it takes prediction_type",
    ),
    "unknown option": ({"scheduler_options": {"karras": True}}, "scheduler_options", "has no 'karras'"),
    "options that are no JSON": ({"scheduler_options": "{karras}"}, "scheduler_options", "is no JSON"),
    "eta without need": ({"eta": 0.5}, "eta", "take ddim or tcd"),
    "timesteps that rise": ({"timesteps": "1, 500"}, "timesteps", "must fall"),
    "timesteps for a scheduler without": (
        {"timesteps": "900, 500, 1", "scheduler": "unipc"},
        "timesteps",
        "takes none; take euler",
    ),
    "both ways of the refiner": (
        {"refiner_split": 0.8, "refiner_strength": 0.3},
        "refiner_strength",
        "two ways to use the refiner",
    ),
    "a refiner without a step": ({"refiner_strength": 0.1, "refiner_steps": 5}, "refiner_strength", "without a step"),
    "a base without a step": (
        {"image": LANDSCAPE, "strength": 0.2},
        "refiner_split",
        "leaves the base without a step after strength 0.2",
    ),
    "no strength left": ({"image": LANDSCAPE, "strength": 0.01, "refiner_split": None}, "strength", "leaves none"),
    "second negative alone": ({"negative_prompt_2": "dark"}, "negative_prompt_2", "needs negative_prompt"),
    "crop with refiner": (
        {"image": LANDSCAPE, "mask_image": MASK, "padding_mask_crop": 8},
        "padding_mask_crop",
        "switch the refiner off",
    ),
    "watermark on a stamp": ({"watermark": True, "size": "64x64"}, "watermark", "does not fit into 64x64"),
    "swap in a prompt": (
        {"prompt_syntax": "compel", "negative_prompt": "a cat.swap(dog)"},
        "negative_prompt",
        "swap() is not possible here",
    ),
    "brackets without end": (
        {"prompt_syntax": "compel", "negative_prompt": "(" * 16},
        "negative_prompt",
        "brackets in brackets; write fewer",
    ),
    "infinity": ({"guidance_scale": float("inf")}, "guidance_scale", "is not possible"),
    "nan": ({"aesthetic_score": "nan"}, "aesthetic_score", "is not possible"),
    "three numbers for a size": ({"original_size": "1,2,3"}, "original_size", "at most 2 items"),
    "misspelt": ({"guidence_scale": 5}, "guidence_scale", "did you mean guidance_scale?"),
    "two names for one": ({"denoising_end": 0.7, "refiner_split": 0.8}, "refiner_split", "say the same thing"),
}


@pytest.fixture
def with_inputs(engine: Engine, settings: Settings) -> Engine:
    for picture in (landscape(), mask()):
        accept_input(engine, open_store(settings), png(picture))
    return engine


@pytest.mark.parametrize(("fields", "field", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_field_and_remedy(
    with_inputs: Engine, fields: dict[str, Any], field: str, message: str
) -> None:
    rows = Intake([Row({"prompt": "a"}, 1), Row({"prompt": "b"}, 2)])
    with pytest.raises(InvalidSubmissionError) as refusal:
        submit_job(with_inputs, CATALOG, "tiny", fields, rows)
    assert (field, True) in {(problem.field, message in problem.message) for problem in refusal.value.problems}
    with with_inputs.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Job)) == 0


def test_what_one_row_does_wrong_is_told_with_its_line(with_inputs: Engine) -> None:
    rows = Intake(
        [Row({"prompt": "a", "image": LANDSCAPE, "strength": 0.7}, 4), Row({"prompt": "b", "strength": 0.7}, 5)]
    )
    with pytest.raises(InvalidSubmissionError, match="line 5, strength: needs an image"):
        submit_job(with_inputs, CATALOG, "tiny", {}, rows)


def test_a_row_completes_what_the_job_says(with_inputs: Engine) -> None:
    rows = Intake([Row({"prompt": "a", "image": LANDSCAPE}, 1), Row({"prompt": "b", "image": LANDSCAPE}, 2)])
    receipt = submit_job(with_inputs, CATALOG, "tiny", {"strength": 0.7, "steps": 20}, rows)
    assert (receipt.image_count, receipt.batch_count) == (2, 1)


def test_a_row_overrides_the_other_way_of_saying_it(with_inputs: Engine) -> None:
    rows = Intake(
        [Row({"prompt": "a", "refiner_strength": 0.5}, 1), Row({"prompt": "b", "timesteps": [900, 500, 1]}, 2)]
    )
    receipt = submit_job(with_inputs, CATALOG, "tiny", {"refiner_split": 0.6, "steps": 30}, rows)
    assert receipt.batch_count == 2
