"""Expands a submission: rows x images per prompt become images, each with its full parameters and its own seed."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from farm.catalog import Catalog, Pipeline
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.spec import MAX_SEED, ImageParameters, JobSpec
from producer.intake import ALIASES, Intake, Row, canonical, suggestion

#: Seeds drawn for people who give none stay short enough to be typed.
RANDOM_SEED_BITS = 32

_SPEC_FIELDS = (*JobSpec.model_fields, *ALIASES, "size")
_DEFAULTED = ("width", "height", "num_inference_steps", "guidance_scale", "refiner_split")


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid submission: what it asked for as a whole, and all its images in the order of their index."""

    spec: JobSpec
    pipeline: Pipeline
    seed: int
    images: list[ImageParameters]


def plan_job(catalog: Catalog, default_pipeline: str, fields: Mapping[str, Any], intake: Intake) -> Plan:
    """Check a submission and expand it. Raises InvalidSubmissionError with every problem that was found."""
    spec = _read_spec(fields)
    try:
        pipeline = catalog.get(spec.pipeline or default_pipeline)
    except NotFoundError as error:
        raise InvalidSubmissionError([Problem("pipeline", str(error))]) from None
    defaults = _image_defaults(spec, pipeline)
    if problems := _problems_of(defaults | {"prompt": "any"}, pipeline, line=None):
        # What is said once is refused once, not for every row.
        raise InvalidSubmissionError(problems)
    if not intake.rows:
        raise InvalidSubmissionError([Problem("prompt", "there is none; write at least one")])

    image_count = len(intake.rows) * spec.images_per_prompt
    seed = spec.seed if spec.seed is not None else secrets.randbits(RANDOM_SEED_BITS)
    if seed + image_count - 1 > MAX_SEED:
        raise InvalidSubmissionError([Problem("seed", f"{seed} + {image_count} images exceeds {MAX_SEED}")])

    problems = []
    images: list[ImageParameters] = []
    for row in intake.rows:
        try:
            images.extend(_images_of(row, defaults, spec.images_per_prompt, seed + len(images)))
            problems.extend(_limits(images[-1], pipeline, row.line))
        except ValidationError as error:
            problems.extend(_problem(details, row.line) for details in error.errors())
    if problems:
        raise InvalidSubmissionError(problems)
    return Plan(spec, pipeline, seed, images)


def _read_spec(fields: Mapping[str, Any]) -> JobSpec:
    for name in fields:
        if name not in _SPEC_FIELDS:
            meant = suggestion(name, _SPEC_FIELDS)
            remedy = f"did you mean {meant}?" if meant else f"the fields are {', '.join(_SPEC_FIELDS)}"
            raise InvalidSubmissionError([Problem(name, f"is no field of a job; {remedy}")])
    try:
        return JobSpec.model_validate(canonical(dict(fields)))
    except ValidationError as error:
        raise InvalidSubmissionError([_problem(details, None) for details in error.errors()]) from None
    except ValueError as error:
        raise InvalidSubmissionError([Problem("size", str(error))]) from None


def _image_defaults(spec: JobSpec, pipeline: Pipeline) -> dict[str, Any]:
    """What a row that sets nothing but its prompt gets."""
    defaults: dict[str, Any] = {"pipeline": pipeline.name, "negative_prompt": spec.negative_prompt, "seed": 0}
    for name in _DEFAULTED:
        given = getattr(spec, name)
        explicit_null = name == "refiner_split" and name in spec.model_fields_set
        defaults[name] = given if given is not None or explicit_null else getattr(pipeline.defaults, name)
    if pipeline.refiner is None and "refiner_split" not in spec.model_fields_set:
        defaults["refiner_split"] = None
    return defaults


def _images_of(row: Row, defaults: dict[str, Any], images_per_prompt: int, next_seed: int) -> Iterator[ImageParameters]:
    """The row's images; their seeds count on from the row's own, or from the job's."""
    first = ImageParameters.model_validate({**defaults, "seed": next_seed, **row.values})
    yield first
    for offset in range(1, images_per_prompt):
        # Only the seed differs, and that it stays in range was checked: no need to validate again.
        yield first.model_copy(update={"seed": first.seed + offset})


def _problems_of(values: dict[str, Any], pipeline: Pipeline, line: int | None) -> list[Problem]:
    try:
        return _limits(ImageParameters.model_validate(values), pipeline, line)
    except ValidationError as error:
        return [_problem(details, line) for details in error.errors()]


def _limits(image: ImageParameters, pipeline: Pipeline, line: int | None) -> list[Problem]:
    """What the parameters allow but this pipeline does not."""
    problems = []
    if image.width > pipeline.max_width:
        problems.append(Problem("width", f"{image.width} exceeds the {pipeline.max_width} of {pipeline.name}", line))
    if image.height > pipeline.max_height:
        problems.append(Problem("height", f"{image.height} exceeds the {pipeline.max_height} of {pipeline.name}", line))
    if image.refiner_split is not None and pipeline.refiner is None:
        problems.append(Problem("refiner_split", f"{pipeline.name} has no refiner; leave the split out", line))
    return problems


def _problem(details: ErrorDetails, line: int | None) -> Problem:
    """A validation error in words for the person who reads it."""
    given, kind, context = details["input"], details["type"], details.get("ctx", {})
    # The only checks across fields concern how the steps are shared out.
    name = str(details["loc"][0]) if details["loc"] else "refiner_split"
    if kind == "value_error":
        message = str(context["error"])
    elif kind == "string_too_long":
        message = f"has {len(given):,} characters; at most {context['max_length']:,} are taken"
    elif isinstance(given, BaseModel | dict | list):
        message = details["msg"]
    else:
        shown = repr(given) if len(repr(given)) <= 40 else f"{repr(given)[:40]}..."
        message = f"{shown} is not possible: {details['msg'][0].lower()}{details['msg'][1:]}"
    return Problem(name, message, line)
