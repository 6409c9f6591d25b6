"""Whatever is asked for is either rendered or refused at the door, with the field to change; nothing fails later."""

from typing import Any

from conformance.cases import INPUTS, LANDSCAPE, MASK, PORTRAIT, RING, render
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from farm.batch_sizes import BatchSizes
from farm.catalog import Catalog
from farm.errors import InvalidSubmissionError
from farm.schedulers import SCHEDULERS
from farm.spec import ImageParameters
from producer.batching import group_to_batches
from producer.expand import InputSize, Shape, plan_job
from producer.intake import Intake, Row
from worker.pictures import preview
from worker.pipelines import LoadedPipeline

PIXELS = st.sampled_from([64, 72, 128]) | st.integers(-8, 200)
STEPS = st.integers(0, 8)
SHARES = st.sampled_from([0.2, 0.5, 0.8, "none"]) | st.floats(allow_nan=True, width=16)
SCORES = st.sampled_from([0.0, 2.5, 6.0]) | st.floats(-1, 11)
PAIRS = st.tuples(st.integers(-1, 2048), st.integers(-1, 2048))
PICTURES = st.sampled_from([LANDSCAPE, PORTRAIT, MASK, RING, "missing.png", None])
FIELDS = {
    "prompt_syntax": st.sampled_from(["compel", "compel", "plain", "typo"]),
    "prompt_2": st.sampled_from(["oil painting", "", None]),
    "negative_prompt": st.sampled_from(["grey", "", None]),
    "negative_prompt_2": st.sampled_from(["photograph", None]),
    "num_inference_steps": STEPS,
    "timesteps": st.lists(st.integers(0, 1000), max_size=5).map(lambda values: sorted(values, reverse=True)),
    "sigmas": st.lists(st.floats(0, 20), max_size=5).map(lambda values: [*sorted(values, reverse=True), 0.0]),
    "scheduler": st.sampled_from([*SCHEDULERS, "Euler a", "nonsense"]),
    "scheduler_options": st.dictionaries(
        st.sampled_from(["timestep_spacing", "use_karras_sigmas", "solver_order", "rescale_betas_zero_snr", "typo"]),
        st.sampled_from(["trailing", "linspace", True, False, 2, 3]),
        max_size=2,
    ),
    "eta": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    "guidance_scale": st.sampled_from([0.0, 1.0, 5.0, float("inf")]),
    "guidance_rescale": st.sampled_from([0.0, 0.7, 1.5]),
    "clip_skip": st.sampled_from([1, 2, 11, None]),
    "strength": SHARES,
    "padding_mask_crop": st.sampled_from([0, 16, None]),
    "refiner_split": SHARES,
    "refiner_strength": SHARES,
    "refiner_steps": STEPS,
    "original_size": PAIRS,
    "target_size": PAIRS,
    "crops_coords_top_left": PAIRS,
    "negative_original_size": PAIRS,
    "negative_target_size": PAIRS,
    "aesthetic_score": SCORES,
    "negative_aesthetic_score": SCORES,
    "image": PICTURES,
    "mask_image": PICTURES,
    "loras": st.sampled_from(
        ["tiny-warm", "tiny-warm:0.5, tiny-cool", "tiny-warm:x", "unknown", [{"name": "tiny-cool"}]]
    ),
    "textual_inversions": st.sampled_from(["tiny-glyph", "tiny-glyph,tiny-glyph", "unknown", []]),
    "controlnet": st.sampled_from(["tiny-edges", "tiny-edges, tiny-depth", "unknown"]),
    "control_image": PICTURES | st.just([LANDSCAPE, PORTRAIT]),
    "controlnet_conditioning_scale": st.sampled_from([0.5, [0.5, 0.7], -1]),
    "control_guidance_start": st.sampled_from([0.0, 0.5, [0.0, 0.9]]),
    "control_guidance_end": st.sampled_from([1.0, 0.5, [0.5, 0.8]]),
    "ip_adapter": st.sampled_from(["tiny-look", "unknown", None]),
    "ip_adapter_image": PICTURES,
    "ip_adapter_scale": st.sampled_from([0.0, 0.6, 11]),
    "watermark": st.sampled_from([True, False, None]),
    "output_format": st.sampled_from(["png", "webp", "png16", "latents", "gif"]),
    "seed": st.integers(-1, 2**63),
    "tpyo": st.just(1),
}
#: What a spec would rarely have by chance: every kind of call.
KINDS = st.sampled_from(
    [
        {},
        {"image": LANDSCAPE, "strength": 0.8},
        {"image": PORTRAIT, "mask_image": RING, "strength": 0.9},
        {"refiner_strength": 0.5},
        {"refiner_split": None},
        {"controlnet": "tiny-edges", "control_image": LANDSCAPE},
        {"ip_adapter": "tiny-look", "ip_adapter_image": PORTRAIT, "refiner_split": None},
        {"prompt_syntax": "compel"},
    ]
)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True))
    size = {"width": draw(PIXELS), "height": draw(PIXELS)} if draw(st.booleans()) else {"size": "64x72"}
    return {"num_inference_steps": 4, **size, **draw(KINDS), **{name: draw(FIELDS[name]) for name in names}}


def find_inputs(_refs: object) -> dict[str, InputSize]:
    return {ref: InputSize(*picture.size) for ref, picture in INPUTS.items()}


PROMPTS = st.sampled_from(
    ["a fox", "a (fox)1.4 in the snow--", "a fox " * 60, "((a) (b", 'a "fox', "a cat.swap(dog)", "a <glyph>", "", "\\("]
)


@given(specs(), st.booleans(), PROMPTS)
@example({"size": "64x64", "steps": 2, "scheduler": "heun", "refiner_split": 0.5}, False, "a fox")
@example({"size": "64x64", "steps": 3, "scheduler": "dpm2", "image": LANDSCAPE, "strength": 0.9}, True, "a fox")
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_random_spec_is_rendered_or_refused(
    pipeline: LoadedPipeline, fields: dict[str, Any], in_row: bool, prompt: str
) -> None:
    if in_row:
        fields, row = {}, {"prompt": prompt, **fields}
        if "tpyo" in row or "size" in row or "steps" in row:
            # What the parser of rows refuses or takes apart; it is tested with the files.
            fields = {name: row.pop(name) for name in ("tpyo", "size", "steps") if name in row}
    else:
        row = {"prompt": prompt}
    try:
        plan = plan_job(Catalog.load(), "tiny", fields, Intake([Row(row, 1), Row({**row, "seed": 5}, 2)]), find_inputs)
    except InvalidSubmissionError as refusal:
        problems = refusal.problems
    else:
        problems = []
        render_all(pipeline, plan.images)
    for problem in problems:
        assert problem.field in {*fields, *row, *ImageParameters.model_fields}, problem
        assert len(problem.message) > 10


def render_all(pipeline: LoadedPipeline, planned: list[ImageParameters]) -> None:
    for batch in group_to_batches(map(Shape, planned), BatchSizes(8)):
        images = [planned[index] for index in batch.indices]
        # As the worker gets them: stored without what is null, and read again.
        stored = batch.parameters.model_dump(mode="json", exclude_none=True)
        received = [
            ImageParameters.model_validate(
                {
                    **stored,
                    **image.own(),
                    "prompt": image.prompt,
                    "negative_prompt": image.negative_prompt,
                    "seed": image.seed,
                }
            )
            for image in images
        ]
        assert received == images
        pictures = render(pipeline, received)
        assert {preview(picture).size for picture in pictures} == {size_of(images[0])}


def size_of(image: ImageParameters) -> tuple[int, int]:
    scale = 8 if image.output_format == "latents" else 1
    return image.width // scale, image.height // scale
