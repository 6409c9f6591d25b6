"""Which parameters of an image go together: what each allows alone and the pipelines do not allow together."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from farm import schedule
from farm.schedulers import SCHEDULERS

if TYPE_CHECKING:
    from farm.spec import ImageParameters

#: Explicit sigmas: far beyond SDXL's own (0.029 to 14.6), where single precision still divides by them.
MIN_SIGMA, MAX_SIGMA = 0.001, 1000.0
#: The smallest picture that the watermark fits into.
MIN_WATERMARK_PIXELS = 256 * 256
#: Brackets in brackets of a weighted prompt, where compel's parser can still follow.
MAX_BRACKETS = 10
#: Operators of compel's syntax that are not for prompts of these pipelines, and what to write in their place.
_NOT_IN_PROMPTS = {
    r"\.swap\(": "swap() is not possible here; write the prompt with the word that is meant",
    r"withLora\(": "withLora() has no effect in a prompt; name LoRAs in the parameter loras",
    r"\.and\(\s*[\d.+-]": 'and() takes no weights here; weight its parts: ("(a fox)1.2", "in the snow").and()',
}
#: What a ControlNet gets where nothing is said.
CONTROL_DEFAULTS = {"controlnet_conditioning_scale": 1.0, "control_guidance_start": 0.0, "control_guidance_end": 1.0}


class CombinationError(ValueError):
    """Parameters that are possible alone but not together; ``field`` is the one to change."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def combination_problems(image: "ImageParameters") -> Iterator[tuple[str, str]]:
    """What is wrong with the parameters together: the field to change, and why."""
    yield from _schedule_problems(image)
    yield from _picture_problems(image)
    yield from _adapter_problems(image)


def _schedule_problems(image: "ImageParameters") -> Iterator[tuple[str, str]]:
    """Whether each stage has work, and whether the scheduler can do what is asked."""
    entry, options = image.scheduler_entry, image.scheduler_options.given()
    label = f"scheduler {entry.name}" if image.scheduler else "the checkpoint's scheduler"
    for name in options:
        if name not in entry.options:
            known = f"it takes {', '.join(sorted(entry.options))}" if entry.options else "it takes none"
            yield "scheduler_options", f"{label} has no option {name}; {known}"
    if options.get("use_karras_sigmas") and options.get("use_exponential_sigmas"):
        yield "scheduler_options", "use_karras_sigmas and use_exponential_sigmas exclude each other"
    solver = options.get("solver_type")
    if solver is not None and solver not in entry.solver_types:
        yield "scheduler_options", f"{label} has no solver_type {solver}; it has {', '.join(entry.solver_types)}"
    if image.eta and not entry.takes_eta:
        yield "eta", f"{label} knows no eta; take ddim or tcd, or leave it out"
    if image.timesteps is not None and image.sigmas is not None:
        yield "sigmas", "timesteps and sigmas exclude each other; leave one out"
    for name, taken in (("timesteps", entry.takes_timesteps), ("sigmas", entry.takes_sigmas)):
        if getattr(image, name) is None:
            continue
        if not taken:
            able = [s.name for s in SCHEDULERS.values() if getattr(s, f"takes_{name}")]
            yield name, f"{label} takes none; take {' or '.join(able)}, or num_inference_steps"
        if name == "timesteps" and {**entry.fixed, **options}.keys() & {"use_karras_sigmas", "use_exponential_sigmas"}:
            yield name, f"{label} makes its own from its sigmas; leave them out"
    if (problem := _unordered(image)) is not None:
        yield problem
    if image.num_inference_steps > entry.max_steps:
        yield "num_inference_steps", f"{label} was made for at most {entry.max_steps}"
    yield from _stage_problems(image, label)


def _unordered(image: "ImageParameters") -> tuple[str, str] | None:
    for name, last in (("timesteps", 0), ("sigmas", 1)):
        values = getattr(image, name)
        if values is None:
            continue
        if list(values) != sorted(set(values), reverse=True):
            return name, "must fall from each to the next"
        if len(values) - last != image.num_inference_steps:
            return "num_inference_steps", f"is {image.num_inference_steps}, but there are {len(values) - last} {name}"
        if name == "timesteps" and not 0 <= values[-1] <= values[0] < schedule.TRAIN_TIMESTEPS:
            return name, f"must lie between 0 and {schedule.TRAIN_TIMESTEPS - 1}"
        if name == "sigmas" and not (values[-1] >= 0 and values[-2] >= MIN_SIGMA and values[0] <= MAX_SIGMA):
            return name, f"must lie between {MIN_SIGMA} and {MAX_SIGMA}; only the last may be 0"
    return None


def _stage_problems(image: "ImageParameters", label: str) -> Iterator[tuple[str, str]]:
    if image.timesteps is not None:
        visited = [float(timestep) for timestep in image.timesteps]
    elif image.sigmas is not None:
        visited = schedule.timesteps_of_sigmas(image.sigmas)
    else:
        visited = schedule.timesteps(image.num_inference_steps, image.scheduler_entry, image.scheduler_options)
    steps = f"{image.num_inference_steps} steps"
    if image.strength is not None:
        left = schedule.after_strength(visited, image.strength)
        if not left:
            yield "strength", f"{image.strength} of {steps} leaves none; take more steps or more strength"
    else:
        left = visited
    if image.refiner_split is not None:
        if image.refiner_strength is not None:
            yield "refiner_strength", "and refiner_split are two ways to use the refiner; leave one out"
        if not image.scheduler_entry.can_split:
            yield "refiner_split", f"{label} cannot hand over in mid-schedule; take another, or refiner_strength"
        split = f"{image.refiner_split} of {steps}"
        if schedule.split_at(left, image.refiner_split)[0] == 0:
            after = f" after strength {image.strength}" if image.strength is not None else ""
            yield "refiner_split", f"{split} leaves the base without a step{after}; take more steps or another split"
        if schedule.split_at(visited, image.refiner_split)[1] == 0:
            yield "refiner_split", f"{split} leaves the refiner without a step; take more steps or another split"
    if image.refiner_strength is None:
        if image.refiner_steps is not None:
            yield "refiner_steps", "needs refiner_strength; with refiner_split both stages share num_inference_steps"
    elif image.refiner_steps is not None and int(image.refiner_steps * image.refiner_strength) == 0:
        yield (
            "refiner_strength",
            f"{image.refiner_strength} of {image.refiner_steps} steps leaves the refiner without a step; "
            f"take more refiner_steps or more strength",
        )


def _picture_problems(image: "ImageParameters") -> Iterator[tuple[str, str]]:
    """Whether what concerns pictures that go in, and prompts, is complete."""
    if image.mask_image is not None and image.image is None:
        yield "image", "is missing: mask_image says what to repaint in it"
    if image.strength is not None and image.image is None:
        yield "strength", "needs an image to start from; add image, or leave strength out"
    if image.padding_mask_crop is not None:
        if image.mask_image is None:
            yield "padding_mask_crop", "needs mask_image; add one, or leave it out"
        if image.refined:
            yield "padding_mask_crop", "pastes the finished crop back, so no refiner can follow; switch the refiner off"
        if image.output_format in ("latents", "png16"):
            yield "output_format", "must be png, webp or jpeg with padding_mask_crop, which pastes 8-bit pictures"
    if image.watermark and (image.width < 256 or image.width * image.height < MIN_WATERMARK_PIXELS):
        yield "watermark", f"does not fit into {image.width}x{image.height}; take 256x256 or more, or leave it out"
    if image.watermark and image.output_format == "latents":
        yield "watermark", "goes into pictures, and latents are none; leave it out"
    if image.negative_prompt_2 is not None and image.negative_prompt is None:
        yield "negative_prompt_2", "needs negative_prompt, without which diffusers ignores it"
    if image.prompt_syntax == "compel":
        for name in ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2"):
            if (problem := _weighting_problem(getattr(image, name) or "")) is not None:
                yield name, problem


def _weighting_problem(text: str) -> str | None:
    """What compel's syntax knows and these pipelines do not; its parser itself is the worker's."""
    for operator, remedy in _NOT_IN_PROMPTS.items():
        if re.search(operator, text):
            return remedy
    depth = deepest = 0
    for bracket in re.findall(r"(?<!\\)[()]", text):
        depth += 1 if bracket == "(" else -1
        deepest = max(deepest, depth)
    return f"has more than {MAX_BRACKETS} brackets in brackets; write fewer" if deepest > MAX_BRACKETS else None


def _adapter_problems(image: "ImageParameters") -> Iterator[tuple[str, str]]:
    for name in ("textual_inversions", "controlnet"):
        if len(set(getattr(image, name))) < len(getattr(image, name)):
            yield name, "names one twice"
    if len({lora.name for lora in image.loras}) < len(image.loras):
        yield "loras", "names one twice"
    nets = len(image.controlnet)
    if nets and image.guidance_rescale:
        yield "guidance_rescale", "is unknown to diffusers' ControlNet pipelines; leave one of the two out"
    if nets and image.image is not None:
        for name in ("timesteps", "sigmas"):
            if getattr(image, name) is not None:
                yield name, "cannot be given to diffusers' ControlNet pipelines that start from a picture; leave it out"
    if nets and image.mode == "image" and image.refiner_split is not None:
        yield (
            "refiner_split",
            "is impossible with controlnet and an image to start from, which diffusers always denoises to the end; "
            "take refiner_strength, or none",
        )
    if len(image.control_image) != nets:
        if not nets:
            yield "controlnet", "is missing: control_image says what it is shown"
        yield "control_image", f"there are {len(image.control_image)} for {nets} in controlnet; give one for each"
    for name in CONTROL_DEFAULTS:
        if len(getattr(image, name)) not in (0, nets) or (getattr(image, name) and not nets):
            yield name, f"has {len(getattr(image, name))} values for {nets} in controlnet"
    for start, end in zip(image.control_guidance_start, image.control_guidance_end, strict=False):
        if not 0 <= start < end <= 1:
            yield "control_guidance_end", f"{end} must be above control_guidance_start {start}, and at most 1"
    if (image.ip_adapter is None) != (image.ip_adapter_image is None):
        missing = "ip_adapter_image" if image.ip_adapter else "ip_adapter"
        yield missing, "is missing: ip_adapter and ip_adapter_image go together"
