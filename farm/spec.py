"""What may be asked for: the parameters of an image, their limits, and the spec of a job.

Names are those of diffusers' SDXL pipelines, and mean what they mean there. The farm's own are ``refiner_split``, the
one number that both halves of the ensemble share (``denoising_end`` of the base, ``denoising_start`` of the refiner),
``refiner_strength`` and ``refiner_steps`` (the refiner as image to image over the base's finished latents), and the
names of what the catalog holds: ``pipeline``, ``scheduler``, ``loras``, ``textual_inversions``, ``controlnet``,
``ip_adapter``.

Pictures that go in are named by their content: ``sha256:`` and 64 hexadecimal digits, as an upload returns them. Those
that another job makes are named by their place: ``job:12/3``.
"""

import json
import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from farm import schedule
from farm.combinations import CONTROL_DEFAULTS, CombinationError, combination_problems
from farm.priorities import ClassName, read_priority
from farm.schedulers import SCHEDULERS, SDXL_OWN, Scheduler, SchedulerOptions, normal_name
from farm.tags import normal_requirement

MAX_PROMPT_CHARACTERS = 10_000
MAX_SEED = 2**63 - 1
MAX_IMAGES_PER_PROMPT = 10_000
#: Images of a job.
MAX_IMAGES = 1_000_000
MAX_PRIORITY = 100
#: A hundred years.
MAX_KEEP_DAYS = 36_500
#: Images in one pipeline call.
MAX_BATCH = 64
#: Jobs of this priority are of the interactive class: somebody waits for them. They overtake all others, which are
#: bulk, and their small batches share calls.
INTERACTIVE_PRIORITY = MAX_PRIORITY
#: Pictures and adapters of one image; more than a device holds.
MAX_ADAPTERS = 8
#: diffusers' own, of the image-to-image and of the inpainting pipeline.
IMAGE_STRENGTH, INPAINT_STRENGTH = 0.3, 0.9999
#: How a picture that goes in is named.
INPUT_REF = re.compile(r"sha256:[0-9a-f]{64}|job:[1-9][0-9]{0,15}/[0-9]{1,7}")
#: In a submission alone: of each image the picture of that job with the same index.
WHOLE_JOB = re.compile(r"job:[1-9][0-9]{0,15}")

Mode = Literal["text", "image", "inpaint"]


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


def job_picture(ref: str) -> tuple[int, int] | None:
    """Job and index of a picture that is named by its place; None for an uploaded one."""
    if not ref.startswith("job:"):
        return None
    job_id, _, index = ref.removeprefix("job:").partition("/")
    return int(job_id), int(index)


def listed(value: Any) -> Any:
    """A list from what cells and forms can say: JSON, or values with commas (or an x) between them."""
    if not isinstance(value, str):
        return value if isinstance(value, list | tuple) else [value]
    text = value.strip()
    if text[:1] in ("[", "{"):
        parsed = _json(text)
        return parsed if isinstance(parsed, list) else [parsed]
    return [part.strip() for part in text.split(",") if part.strip()]


def _pair(value: Any) -> Any:
    if isinstance(value, str) and value.count("x") == 1:
        value = value.replace("x", ",")
    return listed(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{text[:40]!r} is no JSON") from None


def _object(value: Any) -> Any:
    return _json(value) if isinstance(value, str) else value


def _scheduler(name: str) -> str:
    found = normal_name(name)
    if found not in SCHEDULERS:
        raise ValueError(f"there is no {name!r}; the schedulers are {', '.join(SCHEDULERS)}")
    return found


def _lora(value: Any) -> Any:
    """``name`` or ``name:weight`` as an object."""
    if not isinstance(value, str):
        return value
    name, _, weight = value.partition(":")
    return {"name": name.strip(), "weight": weight.strip() or 1.0}


Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_without_nul)]
Pixels = Annotated[int, Field(ge=64, le=4096), AfterValidator(_divisible_by_8)]
Pair = Annotated[tuple[int, int], BeforeValidator(_pair, json_schema_input_type=tuple[int, int] | str)]
"""(height, width) or (top, left) in pixels: diffusers' order."""
Share = Annotated[float, Field(gt=0, lt=1)]
Strength = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
InputRef = Annotated[str, Field(pattern=f"^({INPUT_REF.pattern})$")]
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(listed, json_schema_input_type=tuple[Name, ...] | str),
    Field(max_length=MAX_ADAPTERS),
]
Numbers = Annotated[
    tuple[Annotated[float, Field(ge=0, le=10)], ...],
    BeforeValidator(listed, json_schema_input_type=tuple[float, ...] | float | str),
    Field(max_length=MAX_ADAPTERS),
]
Steps = Annotated[int, Field(ge=1, le=schedule.TRAIN_TIMESTEPS)]


class LoraUse(BaseModel):
    """A LoRA of the catalog, and how strongly it acts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name
    weight: float = Field(default=1.0, ge=-10, le=10)


class SharedParameters(BaseModel):
    """What all images of a batch have in common: everything that one pipeline call takes only once."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pipeline: str
    width: Pixels
    height: Pixels

    num_inference_steps: Steps
    timesteps: (
        Annotated[
            tuple[int, ...],
            BeforeValidator(listed, json_schema_input_type=tuple[int, ...] | int | str),
            Field(min_length=1, max_length=1000),
        ]
        | None
    ) = None
    sigmas: (
        Annotated[
            tuple[float, ...],
            BeforeValidator(listed, json_schema_input_type=tuple[float, ...] | float | str),
            Field(min_length=2, max_length=1001),
        ]
        | None
    ) = None
    """The last sigma ends the schedule and is no step: mostly 0."""
    scheduler: Annotated[str, AfterValidator(_scheduler)] | None = None
    """None is the checkpoint's own."""
    scheduler_options: Annotated[
        SchedulerOptions, BeforeValidator(_object, json_schema_input_type=SchedulerOptions | str)
    ] = SchedulerOptions()
    eta: float = Field(default=0.0, ge=0, le=1)

    guidance_scale: float = Field(ge=0, le=100)
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    clip_skip: int | None = Field(default=None, ge=1, le=10)
    prompt_syntax: Literal["plain", "compel"] = "plain"
    """``compel`` reads weights such as ``(red)1.3`` and lifts the limit of 77 tokens; ``plain`` is diffusers' own."""

    strength: Strength | None = None
    padding_mask_crop: int | None = Field(default=None, ge=0, le=4096)

    refiner_split: Share | None = None
    refiner_strength: Strength | None = None
    refiner_steps: Steps | None = None

    original_size: Pair | None = None
    target_size: Pair | None = None
    crops_coords_top_left: Pair = (0, 0)
    negative_original_size: Pair | None = None
    negative_target_size: Pair | None = None
    negative_crops_coords_top_left: Pair = (0, 0)
    aesthetic_score: float = Field(default=6.0, ge=0, le=10)
    negative_aesthetic_score: float = Field(default=2.5, ge=0, le=10)

    loras: Annotated[
        tuple[Annotated[LoraUse, BeforeValidator(_lora)], ...],
        BeforeValidator(listed, json_schema_input_type=tuple[LoraUse | str, ...] | LoraUse | str),
        Field(max_length=MAX_ADAPTERS),
    ] = ()
    textual_inversions: Names = ()
    controlnet: Names = ()
    controlnet_conditioning_scale: Numbers = ()
    control_guidance_start: Numbers = ()
    control_guidance_end: Numbers = ()
    ip_adapter: Name | None = None
    ip_adapter_scale: float = Field(default=1.0, ge=0, le=10)

    watermark: bool | None = None
    """The invisible watermark; None as in diffusers: there, if the worker has the package."""
    output_format: Literal["png", "webp", "jpeg", "png16", "latents"] = "png"
    output_quality: int = Field(default=90, ge=1, le=100)

    @property
    def refined(self) -> bool:
        """Whether the refiner has a part in it."""
        return self.refiner_split is not None or self.refiner_strength is not None

    @property
    def scheduler_entry(self) -> Scheduler:
        """The scheduler's entry in the table."""
        return SCHEDULERS[self.scheduler] if self.scheduler is not None else SDXL_OWN

    @property
    def alone(self) -> bool:
        """Whether diffusers can render only one such image at a time, or would let its neighbours change it."""
        return self.scheduler_entry.alone or self.padding_mask_crop is not None


#: Images that have one of these share no batch with images that have none.
APART_FIELDS = ("negative_prompt", "image", "mask_image")

#: Their values all at once: jobs have up to a million images.
_shared_values = itemgetter(*SharedParameters.model_fields)


class ImageParameters(SharedParameters):
    """Everything that decides what one picture looks like."""

    prompt: Annotated[Text, AfterValidator(_not_blank)]
    prompt_2: Text | None = None
    negative_prompt: Text | None = None
    negative_prompt_2: Text | None = None
    seed: int = Field(ge=0, le=MAX_SEED)
    image: InputRef | None = None
    mask_image: InputRef | None = None
    control_image: Annotated[
        tuple[InputRef, ...],
        BeforeValidator(listed, json_schema_input_type=tuple[str, ...] | str),
        Field(max_length=MAX_ADAPTERS),
    ] = ()
    """One for each of ``controlnet``, in its order."""
    ip_adapter_image: InputRef | None = None

    @property
    def mode(self) -> Mode:
        """Which of diffusers' pipelines the base's call belongs to."""
        if self.mask_image is not None:
            return "inpaint"
        return "text" if self.image is None else "image"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The pictures that go in."""
        return (*filter(None, (self.image, self.mask_image, self.ip_adapter_image)), *self.control_image)

    def shared(self) -> SharedParameters:
        """The part that must be equal for images to share a batch."""
        return SharedParameters.model_construct(**{name: getattr(self, name) for name in SharedParameters.model_fields})

    def own(self) -> dict[str, Any]:
        """What is this image's own beside prompt, negative prompt and seed; empty for most."""
        return self.model_dump(mode="json", include=set(OWN_FIELDS), exclude_defaults=True)

    def sharing_key(self) -> tuple[object, ...]:
        """Images with equal keys can share a batch.

        Their shared parameters are equal, and all or none of them have a picture to start from, a mask and a negative
        prompt: diffusers takes one per image, but has a different unconditional embedding for "none" (zeros).
        """
        return (*_shared_values(self.__dict__), *(getattr(self, name) is None for name in APART_FIELDS))

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """What follows from other parameters, where it is not given."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        given = {name for name, value in values.items() if value is not None}
        if "image" in given and "strength" not in given:
            filled["strength"] = INPAINT_STRENGTH if "mask_image" in given else IMAGE_STRENGTH
        if "refiner_strength" in given and "refiner_steps" not in given:
            filled["refiner_steps"] = values.get("num_inference_steps")
        for name, last in (("timesteps", 0), ("sigmas", 1)):
            if name in given and "num_inference_steps" not in given:
                filled["num_inference_steps"] = max(len(listed(values[name])) - last, 1)
        nets = len(listed(values["controlnet"])) if "controlnet" in given else 0
        for name, value in CONTROL_DEFAULTS.items():
            scales = listed(values[name]) if name in given else []
            if len(scales) <= 1 and nets:
                filled[name] = (scales or [value]) * nets
        return filled

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for field, message in combination_problems(self):
            raise CombinationError(field, message)
        return self


#: Parameters of an image itself that have no column of their own.
OWN_FIELDS = ("prompt_2", "negative_prompt_2", "image", "mask_image", "control_image", "ip_adapter_image")
#: Parameters that name pictures.
INPUT_FIELDS = ("image", "mask_image", "control_image", "ip_adapter_image")
#: Fields that a row of a file may set for itself, over those of the spec.
ROW_FIELDS = tuple(
    sorted(
        (name for name in ImageParameters.model_fields if name != "pipeline"),
        key=("prompt", "prompt_2", "negative_prompt", "negative_prompt_2", "seed").__contains__,
        reverse=True,
    )
)


def is_refined(parameters: Mapping[str, Any]) -> bool:
    """Whether stored parameters of a batch give the refiner a part in it."""
    return parameters.get("refiner_split") is not None or parameters.get("refiner_strength") is not None


SaidPriority = Annotated[int, Field(ge=0, le=MAX_PRIORITY)] | ClassName
"""A priority as one may say it: a number, or the name of its class."""


class JobSpec(BaseModel):
    """What a submission says of the job as a whole. Everything else it says once is a parameter of all its images."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(max_length=200), AfterValidator(_without_nul)] | None = None
    pipeline: str | None = None
    priority: Annotated[
        int, BeforeValidator(read_priority, json_schema_input_type=SaidPriority), Field(ge=0, le=MAX_PRIORITY)
    ] = 50
    """A number, or the name of a class: idle, low, normal, high, interactive (``farm.priorities``)."""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """Seed of image 0; image k gets seed + k. Drawn at random when it is not given."""
    images_per_prompt: int = Field(default=1, ge=1, le=MAX_IMAGES_PER_PROMPT)
    batch_size: int | None = Field(default=None, ge=1, le=MAX_BATCH)
    """At most so many images share a pipeline call; by default what the catalog says, or the devices measured."""
    inputs: Annotated[
        dict[str, InputRef], BeforeValidator(_object, json_schema_input_type=dict[str, InputRef] | str)
    ] = Field(default_factory=dict)
    """Names under which rows speak of uploaded pictures."""
    templates: Literal["none", "all", "random"] = "none"
    """What ``{red|blue} __animal__`` in a prompt stands for: itself, every combination, or ``template_samples``."""
    template_samples: int = Field(default=1, ge=1, le=10_000)
    """With ``templates`` random: so many prompts are drawn from each template."""
    sweep: dict[str, list[Any]] = Field(default_factory=dict)
    """Parameters that take several values in turn. All combinations of a prompt have the same seeds."""
    first: int | None = Field(default=None, ge=1)
    """Only so many images, from the first, and none of the others ever."""
    test_run: int | None = Field(default=None, ge=1, le=1000)
    """So many images, from the first, are rendered; the others wait until somebody lets them follow."""
    after: int | None = Field(default=None, ge=1)
    """Number of a job whose end this one waits for."""
    requires: Annotated[str, Field(max_length=500), AfterValidator(normal_requirement)] = ""
    """What the workers' tags must satisfy: ``vram>=24, site=lab``."""
    max_devices: int | None = Field(default=None, ge=1)
    """At most so many devices render it at once."""
    deadline: AwareDatetime | None = None
    """When it should be done, with its time zone; it is shown with a forecast."""
    keep_days: int | None = Field(default=None, ge=1, le=MAX_KEEP_DAYS)
    """So many days after its end its pictures go; by default what its owner's policy says (``farm.retention``)."""
    keep_starred: bool | None = None
    """Whether starred ones stay in spite of that; by default what its owner's policy says, or else they do."""
