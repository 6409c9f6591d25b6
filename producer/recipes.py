"""How to render one picture again: as the JSON of a submission, as a command line, as Python.

Each says everything that another pipeline default could change meanwhile, and leaves out what is nowhere set.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farm.catalog import Defaults
from farm.spec import ImageParameters

Json = dict[str, Any]

#: Options of ``farm submit`` that say a parameter; all others go by --set.
_OPTIONS = {
    "pipeline": "--pipeline",
    "negative_prompt": "--negative-prompt",
    "num_inference_steps": "--steps",
    "guidance_scale": "--guidance-scale",
    "refiner_split": "--refiner-split",
    "seed": "--seed",
    "image": "--image",
    "mask_image": "--mask-image",
    "strength": "--strength",
    "scheduler": "--scheduler",
    "output_format": "--output-format",
}
#: Said even where they are as always, because a catalog may have other defaults.
_ALWAYS = ("pipeline", *Defaults.model_fields, "seed")


@dataclass(frozen=True, slots=True)
class Recipes:
    """The three ways to say it."""

    json: str
    command: str
    python: str


def recipes_of(parameters: Mapping[str, Any], url: str | None = None) -> Recipes:
    """The recipes of an image with these parameters; ``url`` is the farm's address, for Python."""
    return Recipes(
        json.dumps(as_json(parameters), ensure_ascii=False, indent=2),
        as_command(parameters),
        as_python(parameters, url),
    )


def as_json(parameters: Mapping[str, Any]) -> Json:
    """The body of ``POST /api/v1/jobs`` that renders it again."""
    return {"prompts": [parameters["prompt"]], **_said(parameters)}


def as_command(parameters: Mapping[str, Any]) -> str:
    """The command line for a POSIX shell."""
    said = _said(parameters)
    # Joined by the sign, so that no value is taken for an option.
    words = ["farm", "submit", f"--prompt={parameters['prompt']}"]
    words.append(f"--size={said.pop('width')}x{said.pop('height')}")
    if "refiner_split" in said and said["refiner_split"] is None:
        del said["refiner_split"]
        words.append("--no-refiner")
    for name, value in said.items():
        option = _OPTIONS.get(name)
        words.append(f"{option}={_text(value)}" if option else f"--set={name}={_text(value)}")
    return shlex.join(words)


def as_python(parameters: Mapping[str, Any], url: str | None = None) -> str:
    """A program for the Python client."""
    fields = "".join(f"        {name}={value!r},\n" for name, value in _said(parameters).items())
    return (
        "from producer import Farm\n\n"
        f"with Farm({repr(url) if url else ''}) as farm:\n"
        "    job = farm.submit(\n"
        f"        [{parameters['prompt']!r}],\n"
        f"{fields}"
        "    )\n"
        "    job.wait(progress=True)\n"
    )


def _said(parameters: Mapping[str, Any]) -> Json:
    """The fields of the job, without its prompt."""
    image = ImageParameters.model_validate({name: value for name, value in parameters.items() if value is not None})
    values = image.model_dump(mode="json", exclude_none=True)
    values["scheduler_options"] = image.scheduler_options.given()
    said: Json = {}
    for name, field in ImageParameters.model_fields.items():
        value = values.get(name)
        is_default = value is None or (not field.is_required() and value == _plain(field.default))
        if name != "prompt" and (not is_default or name in _ALWAYS):
            said[name] = value
    if not said["scheduler_options"]:
        # The scheduler is said, and options go with it: none is what an empty object says, too.
        del said["scheduler_options"]
    if image.refiner_strength is not None:
        # Two ways to use the refiner: the one is said by the other.
        del said["refiner_split"]
    return said


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    """A value as options take it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
