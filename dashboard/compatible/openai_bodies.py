"""What OpenAI's clients ask for, and what that is in the farm's words."""

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from dashboard.compatible.bodies import listed, pipeline_called, refusal
from dashboard.compatible.rendering import Wish
from dashboard.context import context
from farm.catalog import Pipeline
from farm.spec import ROW_FIELDS
from producer.intake import ALIASES, suggestion

DIALECT = "openai"
#: OpenAI's own models: the farm's default pipeline answers to their names.
_THEIRS = re.compile(r"(dall-e|gpt-image|chatgpt-image)-[\w.-]+")
#: OpenAI's former models, which answered with addresses.
_URLS = re.compile(r"dall-e-[\w.-]+")
#: What ``quality`` makes of a pipeline's own number of steps.
STEPS = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.0}
#: Pipelines with fewer steps of their own were made for exactly these.
FEW_STEPS = 10
#: How strongly a picture is changed without a mask.
EDIT_STRENGTH, VARIATION_STRENGTH = 0.75, 0.6
#: Variations come without words.
VARIATION_PROMPT = "a picture"
#: Parameters of an image that ``extra_body`` may say: all but those that a field of OpenAI's says.
PARAMETERS = tuple(
    name for name in (*ROW_FIELDS, *ALIASES) if name not in ("prompt", "output_format", "output_quality", "pipeline")
)
#: What refusals call the farm's fields.
_NAMES = {"pipeline": "model", "images_per_prompt": "n", "output_quality": "output_compression"}
_SAID_BY_STEPS = ("num_inference_steps", "steps", "timesteps", "sigmas")


class ImagesBody(BaseModel):
    """Fields that all three ways to a picture have. Further ones are parameters of the farm's."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    n: int = Field(default=1, ge=1, le=10)
    size: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    user: str | None = None

    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int | None = Field(default=None, ge=0, le=100)
    background: Literal["auto", "opaque", "transparent"] = "auto"
    stream: bool = False
    partial_images: int = Field(default=0, ge=0, le=3)

    style: Any = None
    moderation: Any = None
    safety_identifier: Any = None
    complexity: Any = None
    input_fidelity: Any = None
    """None of these five, nor ``user``, has a meaning here."""

    @property
    def by_url(self) -> bool:
        """Whether the answer gives addresses of the pictures in place of their bytes."""
        if self.response_format is None:
            return self.model is not None and _URLS.fullmatch(self.model) is not None
        return self.response_format == "url"


class PromptBody(ImagesBody):
    """A body with a prompt: generations and edits."""

    prompt: str


class VariationBody(ImagesBody):
    """A body without one."""

    prompt: str = VARIATION_PROMPT

    @property
    def by_url(self) -> bool:
        """Variations were never answered otherwise by default."""
        return self.response_format != "b64_json"


def pipeline_of(model: str | None) -> Pipeline:
    """The pipeline that a model's name stands for; raises UnknownModelError."""
    farm = context()
    names = {entry.name for entry in farm.catalog}
    theirs = model is None or _THEIRS.fullmatch(model) is not None
    return pipeline_called(farm.settings.pipeline if theirs and model not in names else cast("str", model))


def wish_of(
    body: PromptBody | VariationBody, inputs: Mapping[str, str] | None = None, strength: float | None = None
) -> Wish:
    """The body in the farm's words; ``inputs`` are parameters that its pictures became, ``strength`` the usual one.

    Raises UnknownModelError, and InvalidSubmissionError for what is not possible here.
    """
    pipeline = pipeline_of(body.model)
    extras = dict(body.model_extra or {})
    for name in extras:
        if name not in PARAMETERS:
            meant = suggestion(name, (*ImagesBody.model_fields, *PARAMETERS))
            remedy = f"did you mean {meant}?" if meant else f"beside OpenAI's there are {listed(PARAMETERS)}"
            raise refusal(name, f"is no parameter here; {remedy}")
    if body.background == "transparent":
        raise refusal("background", "cannot be transparent; leave it out")
    if body.partial_images and not body.stream:
        raise refusal("partial_images", "needs stream; set it, or leave partial_images out")
    fields = {**extras, "images_per_prompt": body.n, "output_format": body.output_format}
    if body.size not in (None, "auto"):
        fields["size"] = body.size
    if body.output_compression is not None:
        fields["output_quality"] = max(1, body.output_compression)
    steps = pipeline.defaults.num_inference_steps
    if body.quality in STEPS and steps >= FEW_STEPS and not extras.keys() & set(_SAID_BY_STEPS):
        fields["num_inference_steps"] = min(round(steps * STEPS[body.quality]), pipeline.max_num_inference_steps)
    fields |= inputs or {}
    if strength is not None:
        fields.setdefault("strength", strength)
    sizes = {"width": "size", "height": "size"} if "size" in fields else {}
    return Wish(DIALECT, pipeline, body.prompt, fields, _NAMES | sizes)
