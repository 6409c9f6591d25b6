"""Expands a submission: rows x images per prompt become images, each with its full parameters and its own seed."""

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from farm.catalog import Catalog, Entries, Pipeline
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.spec import (
    INPUT_FIELDS,
    INPUT_REF,
    MAX_IMAGES,
    MAX_SEED,
    ROW_FIELDS,
    CombinationError,
    ImageParameters,
    JobSpec,
    listed,
)
from producer.intake import ALIASES, Intake, Row, canonical, suggestion
from producer.sweeps import cells, read_sweep
from producer.templates import TemplateError, Templates

#: Seeds drawn for people who give none stay short enough to be typed.
RANDOM_SEED_BITS = 32

_PARAMETERS = tuple(name for name in ROW_FIELDS if name not in ("prompt", "seed"))
SPEC_FIELDS = (*JobSpec.model_fields, *_PARAMETERS, *ALIASES, "size")
_FIELDS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(cast("type", Annotated[field.annotation, field]))
    for name, field in ImageParameters.model_fields.items()
}
#: Ways to say the same thing: a row or a spec that says one of them overrides what lies below it of the others.
ALTERNATIVES = (
    ("refiner_split", "refiner_strength", "refiner_steps"),
    ("num_inference_steps", "timesteps", "sigmas"),
    ("scheduler", "scheduler_options"),
)


@dataclass(frozen=True, slots=True)
class InputSize:
    """Width and height in pixels of a picture that was uploaded."""

    width: int
    height: int


FindInputs = Callable[[Collection[str]], Mapping[str, InputSize]]
"""Sizes of those of the named pictures that are in the store."""
FindWords = Callable[[], Mapping[str, Sequence[str]]]
"""All lists of words, by name; asked for only if there are templates."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid submission: what it asked for as a whole, and all its images in the order of their index."""

    spec: JobSpec
    given: dict[str, Any]
    """The parameters that were said once, as they were given."""
    pipeline: Pipeline
    seed: int
    images: list[ImageParameters]


def plan_job(
    catalog: Catalog,
    default_pipeline: str,
    fields: Mapping[str, Any],
    intake: Intake,
    find_inputs: FindInputs,
    find_words: FindWords = dict,
) -> Plan:
    """Check a submission and expand it. Raises InvalidSubmissionError with every problem that was found.

    Images come in the order of the rows; within a row in that of the prompts that its template stands for, then of the
    sweep's combinations, then of the images per prompt. Seeds count on from prompt to prompt; the combinations of one
    have the same, so that they differ by what is swept alone.
    """
    spec, given = _read_spec(fields)
    try:
        pipeline = catalog.get(spec.pipeline or default_pipeline)
    except NotFoundError as error:
        raise InvalidSubmissionError([Problem("pipeline", str(error))]) from None
    if not intake.rows:
        raise InvalidSubmissionError([Problem("prompt", "there is none; write at least one")])
    seed = spec.seed if spec.seed is not None else secrets.randbits(RANDOM_SEED_BITS)

    inputs = _Inputs(spec.inputs)
    sized = given.keys() & {"width", "height"}
    try:
        given = inputs.resolved(given)
        swept = [inputs.resolved(cell) for cell in cells(spec.sweep)]
    except CombinationError as error:
        raise InvalidSubmissionError([Problem(error.field, str(error))]) from None
    defaults = _overlay(_pipeline_defaults(pipeline), given)
    # A combination may become whole by what the rows add; where they add nothing, it is refused once.
    said_by_rows = {name for row in intake.rows for name in row.values} | spec.sweep.keys()
    if said_by_rows <= {"prompt", "seed"} and (problems := _said_once_problems(defaults, catalog, pipeline)):
        raise InvalidSubmissionError(problems)

    rows, problems = [], []
    for row in _with_templates(spec, seed, intake.rows, find_words):
        try:
            rows.append((row, inputs.resolved(row.values)))
        except CombinationError as error:
            problems.append(Problem(error.field, str(error), row.line))
    _check_count(len(rows) * spec.images_per_prompt, len(swept), seed)
    sizes = find_inputs(inputs.named)
    images: list[ImageParameters] = []
    known: dict[str, ImageParameters] = {}
    for number, (row, values) in enumerate(rows):
        first_seed = {"seed": seed + number * spec.images_per_prompt}
        for cell in swept:
            try:
                merged = _overlay(_overlay({**defaults, **first_seed}, values), cell)
                missing = inputs.missing(merged, sizes)
                if missing is not None:
                    problems.append(Problem(*missing, row.line))
                    continue
                if not sized and not {*row.values, *cell} & {"width", "height"}:
                    merged |= _size_of_input(merged, sizes)
                first = _alike(known, merged)
                if first is None:
                    first = ImageParameters.model_validate(merged)
                    if beyond := _limits(first, catalog, pipeline, row.line):
                        problems += beyond
                        continue
                    known[_likeness(merged)] = first
                images.extend(_images_of(first, spec.images_per_prompt))
            except ValidationError as error:
                problems.extend(_problem(details, row.line) for details in error.errors())
    if problems:
        raise InvalidSubmissionError([*dict.fromkeys(problems)])
    return Plan(spec, given, pipeline, seed, images[: spec.first])


def _with_templates(spec: JobSpec, seed: int, rows: Sequence[Row], find_words: FindWords) -> Sequence[Row]:
    """The rows, each once for every prompt that it stands for."""
    if spec.templates == "none":
        return rows
    templates = Templates(find_words())
    expanded, problems = [], []
    for number, row in enumerate(rows):
        prompt = row.values.get("prompt")
        try:
            if not isinstance(prompt, str):
                expanded.append(row)
                continue
            prompts = (
                templates.all(prompt)
                if spec.templates == "all"
                else templates.some(prompt, spec.template_samples, seed + number)
            )
            expanded += [Row({**row.values, "prompt": one}, row.line) for one in prompts]
        except TemplateError as error:
            problems.append(Problem("prompt", str(error), row.line))
        if len(expanded) > MAX_IMAGES:
            raise InvalidSubmissionError([Problem("templates", f"stand for more than {MAX_IMAGES:,} prompts")])
    if problems:
        raise InvalidSubmissionError(problems)
    return expanded


def _check_count(seeds: int, combinations: int, seed: int) -> None:
    if seeds * combinations > MAX_IMAGES:
        message = f"would have {seeds * combinations:,} images, and at most {MAX_IMAGES:,} are taken; make several jobs"
        raise InvalidSubmissionError([Problem("job", message)])
    if seed + seeds - 1 > MAX_SEED:
        raise InvalidSubmissionError([Problem("seed", f"{seed} + {seeds} images exceeds {MAX_SEED}")])


def _read_spec(fields: Mapping[str, Any]) -> tuple[JobSpec, dict[str, Any]]:
    """What concerns the job, and the parameters that are said once for all its images."""
    for name in fields:
        if name not in SPEC_FIELDS:
            meant = suggestion(name, SPEC_FIELDS)
            remedy = f"did you mean {meant}?" if meant else f"the fields are {', '.join(SPEC_FIELDS)}"
            raise InvalidSubmissionError([Problem(name, f"is no field of a job; {remedy}")])
    try:
        values = canonical(dict(fields))
        if values.get("sweep") is not None:
            values["sweep"] = read_sweep(values["sweep"])
        job = {name: value for name, value in values.items() if name in JobSpec.model_fields}
        spec = JobSpec.model_validate(job)
    except ValidationError as error:
        raise InvalidSubmissionError([_problem(details, None) for details in error.errors()]) from None
    except CombinationError as error:
        raise InvalidSubmissionError([Problem(error.field, str(error))]) from None
    given, problems = {}, []
    for name, value in values.items():
        if name in INPUT_FIELDS:
            given[name] = value
        elif name not in JobSpec.model_fields:
            try:
                given[name] = _FIELDS[name].dump_python(_FIELDS[name].validate_python(value), mode="json")
            except ValidationError as error:
                problems += [_problem(details, None, name) for details in error.errors()]
    if problems:
        raise InvalidSubmissionError(problems)
    return spec, given


def _pipeline_defaults(pipeline: Pipeline) -> dict[str, Any]:
    """What an image gets where the submission is silent."""
    defaults = pipeline.defaults.model_dump(exclude_none=True)
    if pipeline.refiner is None:
        defaults.pop("refiner_split", None)
    return {"pipeline": pipeline.name, **defaults}


def _overlay(lower: dict[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``lower`` as ``upper`` changes them."""
    merged = dict(lower)
    for names in ALTERNATIVES:
        if any(name in upper for name in names):
            for name in names:
                merged.pop(name, None)
    merged.update(upper)
    if merged.get("scheduler_options") is None:
        merged.pop("scheduler_options", None)
    return merged


def _size_of_input(values: Mapping[str, Any], sizes: Mapping[str, InputSize]) -> dict[str, int]:
    """Without a size of its own, an image has the size of the picture it starts from, rounded down to 8 pixels."""
    size = sizes.get(values.get("image") or "")
    return {} if size is None else {"width": size.width // 8 * 8, "height": size.height // 8 * 8}


def _likeness(values: Mapping[str, Any]) -> str:
    return repr([(name, value) for name, value in sorted(values.items()) if name not in ("prompt", "seed")])


def _alike(known: Mapping[str, ImageParameters], values: Mapping[str, Any]) -> ImageParameters | None:
    """An image that differs from one that was checked by prompt and seed alone, so that only these must be checked.

    None if there is none, or if they are wrong: the whole check says how. Most rows of large files are alike, and the
    whole check takes ten times as long.
    """
    model = known.get(_likeness(values))
    if model is None or model.prompt_syntax != "plain":
        return None
    try:
        own = {name: _FIELDS[name].validate_python(values[name]) for name in ("prompt", "seed")}
    except (ValidationError, KeyError):
        return None
    return model.model_copy(update=own)


def _images_of(first: ImageParameters, images_per_prompt: int) -> Iterator[ImageParameters]:
    """A row's images; their seeds count on from the first."""
    yield first
    for offset in range(1, images_per_prompt):
        # Only the seed differs, and that it stays in range was checked: no need to validate again.
        yield first.model_copy(update={"seed": first.seed + offset})


def _said_once_problems(defaults: dict[str, Any], catalog: Catalog, pipeline: Pipeline) -> list[Problem]:
    """What is wrong with what all rows have in common, refused once and not for every row."""
    try:
        image = ImageParameters.model_validate({**defaults, "prompt": "any", "seed": 0})
    except ValidationError as error:
        return [_problem(details, None) for details in error.errors()]
    return _limits(image, catalog, pipeline, None)


class _Inputs:
    """Pictures that go in: names to what they stand for."""

    def __init__(self, uploaded: Mapping[str, str]) -> None:
        self._uploaded = uploaded
        self.named: set[str] = set()

    def resolved(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with content in place of names. Raises CombinationError for a name that stands for nothing."""
        result = dict(values)
        for field in INPUT_FIELDS:
            value = values.get(field)
            if value is None:
                continue
            names = listed(value) if field == "control_image" else [value]
            refs = [self._resolve(field, name) for name in names]
            result[field] = refs if field == "control_image" else refs[0]
        return result

    def _resolve(self, field: str, name: object) -> str:
        ref = self._uploaded.get(name, name) if isinstance(name, str) else None
        if not isinstance(ref, str) or not INPUT_REF.fullmatch(ref):
            raise CombinationError(
                field, f"{str(name)[:80]!r} was not uploaded; upload it, and name it under inputs or by its sha256"
            )
        self.named.add(ref)
        return ref

    def missing(self, values: Mapping[str, Any], sizes: Mapping[str, InputSize]) -> tuple[str, str] | None:
        """The first field that names a picture which is not in the store."""
        for field in INPUT_FIELDS:
            value = values.get(field)
            for ref in () if value is None else value if isinstance(value, list) else [value]:
                if ref not in sizes:
                    return field, f"{ref} is not in the store; upload it first"
        return None


def _limits(image: ImageParameters, catalog: Catalog, pipeline: Pipeline, line: int | None) -> list[Problem]:
    """What the parameters allow but this farm or this pipeline does not."""
    problems = []
    if image.width > pipeline.max_width:
        problems.append(Problem("width", f"{image.width} exceeds the {pipeline.max_width} of {pipeline.name}", line))
    if image.height > pipeline.max_height:
        problems.append(Problem("height", f"{image.height} exceeds the {pipeline.max_height} of {pipeline.name}", line))
    for name in ("num_inference_steps", "guidance_scale"):
        limit = getattr(pipeline, f"max_{name}")
        if getattr(image, name) > limit:
            problems.append(Problem(name, f"{getattr(image, name)} exceeds the {limit} of {pipeline.name}", line))
    if image.refined and pipeline.refiner is None:
        field = "refiner_split" if image.refiner_split is not None else "refiner_strength"
        problems.append(Problem(field, f"{pipeline.name} has no refiner; leave it out", line))
    problems += [Problem(field, message, line) for field, message in _adapter_problems(image, catalog, pipeline)]
    return problems


def _adapter_problems(image: ImageParameters, catalog: Catalog, pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    """Adapters that the catalog does not hold, or that were made for other pipelines."""
    named: list[tuple[str, Entries[Any], Sequence[str]]] = [
        ("loras", catalog.loras, [lora.name for lora in image.loras]),
        ("textual_inversions", catalog.textual_inversions, image.textual_inversions),
        ("controlnet", catalog.controlnets, image.controlnet),
        ("ip_adapter", catalog.ip_adapters, [image.ip_adapter] if image.ip_adapter else []),
    ]
    for field, entries, names in named:
        for name in names:
            try:
                entry = entries.get(name)
            except NotFoundError as error:
                yield field, str(error)
                continue
            if not entry.fits(pipeline.name):
                yield field, f"{name} was made for {', '.join(entry.pipelines)}, not for {pipeline.name}; leave it out"


#: What pydantic says in the words of programmers.
_PLAIN_WORDS = {
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "int_type": "write a whole number",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "bool_parsing": "write true or false",
}


def _problem(details: ErrorDetails, line: int | None, name: str | None = None) -> Problem:
    """A validation error, of the field ``name`` or of the whole, in words for the person who reads it."""
    given, kind, context = details["input"], details["type"], details.get("ctx", {})
    error = context.get("error")
    if name is None:
        name = error.field if isinstance(error, CombinationError) else str(details["loc"][0])
    if kind == "value_error":
        message = str(error)
    elif kind == "extra_forbidden":
        message = f"has no {details['loc'][-1]!r}"
    elif kind == "string_too_long":
        message = f"has {len(given):,} characters; at most {context['max_length']:,} are taken"
    elif isinstance(given, BaseModel | dict | list):
        message = f"{details['msg'][0].lower()}{details['msg'][1:]}"
    else:
        told = _PLAIN_WORDS.get(kind) or f"{details['msg'][0].lower()}{details['msg'][1:]}"
        shown = repr(given) if len(repr(given)) <= 40 else f"{repr(given)[:40]}..."
        message = f"{shown} is not possible: {told}"
    return Problem(name, message, line)
