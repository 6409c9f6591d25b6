"""The folded part of the form: the parameters that are not needed every day, in groups."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from farm.schedulers import SCHEDULERS
from farm.spec import INPUT_FIELDS, ImageParameters, JobSpec


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form."""

    name: str
    hint: str
    choices: tuple[str, ...] = ()
    is_picture: bool = False


#: Per group, its fields with an example of what they take.
_GROUPS: dict[str, dict[str, str]] = {
    "Start from a picture": {
        "image": "the picture to start from",
        "mask_image": "white is painted anew",
        "strength": "0.3, inpainting 0.9999",
        "padding_mask_crop": "pixels around the mask",
    },
    "Schedule": {
        "scheduler": "the checkpoint's own",
        "scheduler_options": '{"timestep_spacing": "trailing"}',
        "timesteps": "999, 845, 730, 587, 443, 310, 193, 116, 53, 13",
        "sigmas": "14.6, 6.3, 3.8, 2.0, 1.0, 0.0",
        "eta": "0, with ddim or tcd up to 1",
    },
    "Prompts and guidance": {
        "prompt_2": "for the second text encoder",
        "negative_prompt_2": "for the second text encoder",
        "prompt_syntax": "",
        "guidance_rescale": "0",
        "clip_skip": "none",
    },
    "Refiner by image to image": {
        "refiner_strength": "such as 0.3, in place of the split",
        "refiner_steps": "as the base",
    },
    "Micro-conditioning": {
        "original_size": "height, width",
        "target_size": "height, width",
        "crops_coords_top_left": "0, 0",
        "negative_original_size": "height, width",
        "negative_target_size": "height, width",
        "negative_crops_coords_top_left": "0, 0",
        "aesthetic_score": "6",
        "negative_aesthetic_score": "2.5",
    },
    "Adapters": {
        "loras": "name:0.8, other",
        "textual_inversions": "names of the catalog",
        "controlnet": "names of the catalog",
        "control_image": "one for each ControlNet",
        "controlnet_conditioning_scale": "1",
        "control_guidance_start": "0",
        "control_guidance_end": "1",
        "ip_adapter": "a name of the catalog",
        "ip_adapter_image": "the picture to follow",
        "ip_adapter_scale": "1",
    },
    "Output": {
        "output_format": "",
        "output_quality": "90, for webp and jpeg",
        "watermark": "as diffusers",
    },
}


def groups() -> dict[str, list[Field]]:
    """The groups with their fields."""
    return {title: [_field(name, hint) for name, hint in fields.items()] for title, fields in _GROUPS.items()}


def names() -> Iterator[str]:
    """Names of all fields in the groups."""
    for fields in _GROUPS.values():
        yield from fields


def _field(name: str, hint: str) -> Field:
    return Field(name, hint, _choices(name), name in INPUT_FIELDS)


def _choices(name: str) -> tuple[str, ...]:
    """The values of a field that has but a few."""
    if name == "scheduler":
        return tuple(SCHEDULERS)
    annotation: Any = (ImageParameters.model_fields | JobSpec.model_fields)[name].annotation
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return ("true", "false") if bool in get_args(annotation) else ()
