"""What may be asked for: the parameters of an image, their limits, and the spec of a job.

Parameter names are those of diffusers' ``StableDiffusionXLPipeline.__call__``. ``refiner_split`` is the one
number that both halves of the ensemble share: ``denoising_end`` of the base and ``denoising_start`` of the
refiner.
"""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from farm.schedule import TRAIN_TIMESTEPS, split_steps

MAX_PROMPT_CHARACTERS = 10_000
MAX_SEED = 2**63 - 1
MAX_IMAGES_PER_PROMPT = 10_000
MAX_PRIORITY = 100


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character; remove it")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; write what the picture should show")
    return text


def _divisible_by_8(pixels: int) -> int:
    if pixels % 8:
        raise ValueError(
            f"{pixels} is not divisible by 8; the nearest sizes are {pixels // 8 * 8} and {pixels // 8 * 8 + 8}"
        )
    return pixels


Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_without_nul)]
Pixels = Annotated[int, Field(ge=64, le=4096), AfterValidator(_divisible_by_8)]


class SharedParameters(BaseModel):
    """What all images of a batch have in common: everything that one pipeline call takes only once."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pipeline: str
    width: Pixels
    height: Pixels
    num_inference_steps: int = Field(ge=1, le=TRAIN_TIMESTEPS)
    guidance_scale: float = Field(ge=0, le=100)
    refiner_split: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _both_stages_have_work(self) -> Self:
        if self.refiner_split is not None:
            base, refiner = split_steps(self.num_inference_steps, self.refiner_split)
            if base == 0 or refiner == 0:
                idle = "base" if base == 0 else "refiner"
                raise ValueError(
                    f"refiner_split {self.refiner_split} of {self.num_inference_steps} steps leaves the {idle} "
                    f"without a step; take more steps or another split"
                )
        return self


class ImageParameters(SharedParameters):
    """Everything that decides what one picture looks like."""

    prompt: Annotated[Text, AfterValidator(_not_blank)]
    negative_prompt: Text | None = None
    seed: int = Field(ge=0, le=MAX_SEED)

    def shared(self) -> SharedParameters:
        """The part that must be equal for images to share a batch."""
        return SharedParameters(**{name: getattr(self, name) for name in SharedParameters.model_fields})


class JobSpec(BaseModel):
    """What a submission says once for all of its rows. What it leaves out comes from the pipeline's catalog entry.

    A field that was not given is unset, which is not the same as given as null: ``refiner_split: null`` asks
    for pictures that the base finishes alone.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(max_length=200), AfterValidator(_without_nul)] | None = None
    pipeline: str | None = None
    priority: int = Field(default=50, ge=0, le=MAX_PRIORITY)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """Seed of image 0; image k gets seed + k. Drawn at random when it is not given."""
    images_per_prompt: int = Field(default=1, ge=1, le=MAX_IMAGES_PER_PROMPT)
    batch_size: int | None = Field(default=None, ge=1, le=64)
    """At most so many images share a pipeline call; by default what the catalog found best."""

    negative_prompt: Text | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    refiner_split: float | None = None


#: Fields that a row of a file may set for itself, over those of the spec.
ROW_FIELDS = (
    "prompt",
    "negative_prompt",
    "seed",
    "num_inference_steps",
    "guidance_scale",
    "width",
    "height",
    "refiner_split",
)
