"""What may be said of a job or a row, as keyword arguments: for editors and type checkers.

Names are those of ``farm.spec`` and its aliases, meanings too; the farm checks the values.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    PictureLike = str | Path | bytes | Picture
    """A picture that goes in: its path, its bytes, a PIL image, or the name that an upload returned."""

Pair = tuple[int, int] | list[int] | str
Numbers = float | Sequence[float] | str
Names = str | Sequence[str]


class RowParameters(TypedDict, total=False):
    """What a row may set for its own images, over what is said once for the job."""

    prompt_2: str | None
    negative_prompt: str | None
    negative_prompt_2: str | None
    width: int
    height: int
    size: str
    num_inference_steps: int
    steps: int
    timesteps: Sequence[int] | str | None
    sigmas: Sequence[float] | str | None
    scheduler: str | None
    scheduler_options: Mapping[str, Any] | str | None
    eta: float
    guidance_scale: float
    cfg_scale: float
    guidance_rescale: float
    clip_skip: int | None
    prompt_syntax: Literal["plain", "compel"]
    strength: float | None
    padding_mask_crop: int | None
    refiner_split: float | str | None
    denoising_end: float | str | None
    denoising_start: float | str | None
    refiner_strength: float | None
    refiner_steps: int | None
    original_size: Pair | None
    target_size: Pair | None
    crops_coords_top_left: Pair
    negative_original_size: Pair | None
    negative_target_size: Pair | None
    negative_crops_coords_top_left: Pair
    aesthetic_score: float
    negative_aesthetic_score: float
    loras: str | Sequence[str | Mapping[str, Any]]
    textual_inversions: Names
    controlnet: Names
    controlnet_conditioning_scale: Numbers
    control_guidance_start: Numbers
    control_guidance_end: Numbers
    ip_adapter: str | None
    ip_adapter_scale: float
    watermark: bool | None
    output_format: Literal["png", "webp", "jpeg", "png16", "latents"]
    output_quality: int
    image: "PictureLike | None"
    mask_image: "PictureLike | None"
    control_image: "PictureLike | Sequence[PictureLike]"
    ip_adapter_image: "PictureLike | None"


class Parameters(RowParameters, total=False):
    """What may be said once for a job; a row overrides what is a row's."""

    name: str | None
    pipeline: str | None
    priority: int | Literal["idle", "low", "normal", "high", "interactive"]
    after: int | None
    requires: str
    max_devices: int | None
    deadline: datetime | str | None
    seed: int | None
    images_per_prompt: int
    batch_size: int | None
    inputs: Mapping[str, str]
    templates: Literal["none", "all", "random"]
    template_samples: int
    first: int | None
    test_run: int | None
    keep_days: int | None
    keep_starred: bool | None
    columns: Mapping[str, str]
