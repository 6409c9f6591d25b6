"""A job as something to submit again: the fields and rows that give the same images."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from farm.catalog import Catalog
from farm.errors import InvalidSubmissionError
from farm.spec import INPUT_FIELDS, ImageParameters, JobSpec
from producer.expand import ALTERNATIVES, InputSize, plan_job
from producer.intake import Intake, Row

Json = dict[str, Any]

#: What made many images of few rows: rows that were written out must not be multiplied again.
_MULTIPLIERS = ("sweep", "templates", "template_samples", "images_per_prompt", "first", "test_run")
_DEFAULTS = {name: field.default for name, field in ImageParameters.model_fields.items() if not field.is_required()}


class Again:
    """Rewrites a job's images as rows over its fields."""

    def __init__(self, catalog: Catalog, pipeline: str, spec: Mapping[str, Any]) -> None:
        self.fields: Json = {**{name: value for name, value in spec.items() if value is not None}, "pipeline": pipeline}
        if "refiner_split" in spec:
            self.fields["refiner_split"] = spec["refiner_split"]
        self._per_prompt = spec.get("images_per_prompt", 1)
        for name in _MULTIPLIERS:
            self.fields.pop(name, None)
        self._seed = spec["seed"]
        self._names = {ref: name for name, ref in (spec.get("inputs") or {}).items()}
        baseline = _image_of(catalog, pipeline, self.fields)
        if baseline is None:
            # Only with what its rows added was the spec whole: then the rows say everything.
            self.fields = {name: value for name, value in self.fields.items() if name in JobSpec.model_fields}
            baseline = _image_of(catalog, pipeline, self.fields)
        self._baseline = baseline or {}

    def rows(self, images: Iterable[Mapping[str, Any]]) -> Iterator[Json]:
        """What each image sets for itself. ``images`` come with all their parameters, from index 0 on."""
        for index, image in enumerate(images):
            yield {"prompt": image["prompt"], **self._differences(image), **self._seed_of(image, index)}

    def prompts(self, images: Sequence[Mapping[str, Any]]) -> list[str] | None:
        """The prompts, if they and ``images_per_prompt`` say all that the rows would; else None."""
        prompts = []
        for index, image in enumerate(images):
            prompt = image["prompt"]
            if index % self._per_prompt == 0:
                prompts.append(prompt)
            if prompt != prompts[-1] or "\n" in prompt or "\r" in prompt or not prompt.strip():
                return None
            if self._differences(image) or self._seed_of(image, index):
                return None
        return prompts

    @property
    def images_per_prompt(self) -> int:
        """Goes with ``prompts``."""
        return int(self._per_prompt)

    def _seed_of(self, image: Mapping[str, Any], index: int) -> Json:
        return {} if image["seed"] == self._seed + index else {"seed": image["seed"]}

    def _differences(self, image: Mapping[str, Any]) -> Json:
        changed = {
            name
            for name in ImageParameters.model_fields
            if name not in ("prompt", "seed", "pipeline") and _plain(image, name) != _plain(self._baseline, name)
        }
        values = {name: self._named(name, image.get(name)) for name in ImageParameters.model_fields if name in changed}
        for names in ALTERNATIVES:
            if changed & set(names):
                # To say one of them unsays the others.
                said = {name: image.get(name) for name in names if image.get(name)}
                for name in names:
                    values.pop(name, None)
                values |= said or {names[0]: None}
        if image.get("image") is not None:
            # Without a size of its own it would get that of the picture it starts from.
            values |= {"width": image["width"], "height": image["height"]}
        return values

    def _named(self, field: str, value: Any) -> Any:
        if field not in INPUT_FIELDS or value is None:
            return value
        if isinstance(value, list | tuple):
            return [self._names.get(ref, ref) for ref in value]
        return self._names.get(value, value)


def fields_of_image(parameters: Mapping[str, Any]) -> Json:
    """One image's parameters as the fields of a job that renders it alone, without its prompt."""
    fields = {
        name: value
        for name, value in parameters.items()
        if name in ImageParameters.model_fields
        and name not in ("prompt", "refiner_split")
        and value not in (None, (), [], {})
        and value != _plain({}, name)
    }
    if parameters.get("refiner_split") is not None or "refiner_strength" not in fields:
        fields["refiner_split"] = parameters.get("refiner_split")
    if "timesteps" in fields or "sigmas" in fields:
        fields.pop("num_inference_steps", None)
    return fields


def form_text(name: str, value: Any) -> str:
    """A value as a field of the form, or a cell, says it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if name == "loras" and isinstance(value, list | tuple) and all(map(_names_a_lora, value)):
        return ", ".join(f"{use['name']}:{use.get('weight', 1.0)}" if isinstance(use, dict) else use for use in value)
    if isinstance(value, list | tuple) and all(isinstance(part, str | int | float) for part in value):
        return ", ".join(map(str, value))
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _names_a_lora(use: Any) -> bool:
    return isinstance(use, str) or (isinstance(use, dict) and "name" in use)


def _image_of(catalog: Catalog, pipeline: str, fields: Mapping[str, Any]) -> Json | None:
    """What a row without anything of its own becomes; None if it becomes nothing."""

    def any_size(refs: Collection[str]) -> Mapping[str, InputSize]:
        return dict.fromkeys(refs, InputSize(64, 64))

    try:
        plan = plan_job(catalog, pipeline, fields, Intake([Row({"prompt": "any"})]), any_size)
    except InvalidSubmissionError:
        return None
    return plan.images[0].model_dump(mode="json")


def _plain(values: Mapping[str, Any], name: str) -> Any:
    """A value as JSON holds it, the default's where there is none."""
    value = values.get(name)
    if value is None:
        value = _DEFAULTS.get(name)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, dict):
        value = {key: one for key, one in value.items() if one is not None}
    return list(value) if isinstance(value, tuple) else value
