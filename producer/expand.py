"""Expands a submission: rows x images per prompt become images, each with its full parameters and its own seed."""

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Annotated, Any, NamedTuple, cast

from pydantic import TypeAdapter, ValidationError

from farm.catalog import Catalog, Pipeline
from farm.combinations import CombinationError
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.spec import (
    INPUT_FIELDS,
    INPUT_REF,
    MAX_IMAGES,
    MAX_SEED,
    ROW_FIELDS,
    WHOLE_JOB,
    ImageParameters,
    JobSpec,
    SharedParameters,
    job_picture,
    listed,
)
from producer.intake import ALIASES, Intake, Row, canonical, suggestion
from producer.limits import limit_problems
from producer.problems import Problems, problem_of
from producer.sweeps import cells, read_sweep
from producer.templates import TemplateError, Templates

#: Seeds drawn for people who give none stay short enough to be typed.
RANDOM_SEED_BITS = 32
#: Rows that are checked together.
ROWS_AT_ONCE = 1_000
#: Shapes of rows that are remembered: a file in which every row is another must not fill the memory.
MAX_SHAPES_KNOWN = 10_000
#: With so many problems the rest of a submission is not looked at.
MAX_PROBLEMS_COUNTED = 10_000

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


class Shape:
    """What images have in common that differ by prompt and seed alone; most rows of large files are of few shapes.

    What follows from it is worked out once, however many images have it.
    """

    def __init__(self, parameters: ImageParameters) -> None:
        self.parameters = parameters
        """Those of one such image."""

    @cached_property
    def sharing_key(self) -> tuple[object, ...]:
        """Images with equal keys can share a batch."""
        return self.parameters.sharing_key()

    @cached_property
    def shared(self) -> SharedParameters:
        """What a batch keeps."""
        return self.parameters.shared()

    @cached_property
    def own(self) -> dict[str, Any]:
        """What each image keeps beside prompt, negative prompt and seed."""
        return self.parameters.own()


class PlannedImage(NamedTuple):
    """An image that is not written yet."""

    shape: Shape
    prompt: str
    seed: int

    def parameters(self) -> ImageParameters:
        """All its parameters."""
        return self.shape.parameters.model_copy(update={"prompt": self.prompt, "seed": self.seed})


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid submission: what it asked for as a whole, and all its images in the order of their index."""

    spec: JobSpec
    given: dict[str, Any]
    """The parameters that were said once, as they were given."""
    pipeline: Pipeline
    seed: int
    planned: list[PlannedImage]

    @property
    def images(self) -> list[ImageParameters]:
        """The parameters of each image."""
        return [image.parameters() for image in self.planned]


def plan_job(
    catalog: Catalog,
    default_pipeline: str,
    fields: Mapping[str, Any],
    intake: Intake,
    find_inputs: FindInputs,
    find_words: FindWords = dict,
) -> Plan:
    """Check a submission and expand it. Raises InvalidSubmissionError with the problems that were found."""
    expansion = Expansion(catalog, default_pipeline, fields, find_inputs, find_words)
    planned = [*expansion.images(intake.rows)]
    return Plan(expansion.spec, expansion.given, expansion.pipeline, expansion.seed, planned)


class Expansion:
    """What a submission says of all its images, and how its rows become images.

    Images come in the order of the rows; within a row in that of the prompts that its template stands for, then of the
    sweep's combinations, then of the images per prompt. Seeds count on from prompt to prompt; the combinations of one
    have the same, so that they differ by what is swept alone.
    """

    def __init__(
        self,
        catalog: Catalog,
        default_pipeline: str,
        fields: Mapping[str, Any],
        find_inputs: FindInputs,
        find_words: FindWords = dict,
        max_images: int = MAX_IMAGES,
    ) -> None:
        """Raises InvalidSubmissionError for what is wrong with the fields themselves."""
        self._catalog, self._find_inputs, self._find_words = catalog, find_inputs, find_words
        self._max_images = min(max_images, MAX_IMAGES)
        self.spec, given = _read_spec(fields)
        try:
            self.pipeline = catalog.get(self.spec.pipeline or default_pipeline)
        except NotFoundError as error:
            raise InvalidSubmissionError([Problem("pipeline", str(error))]) from None
        self.seed = self.spec.seed if self.spec.seed is not None else secrets.randbits(RANDOM_SEED_BITS)
        self._inputs = _Inputs(self.spec.inputs)
        self._sized = bool(given.keys() & {"width", "height"})
        try:
            self.given = self._inputs.resolved(given)
            self._cells = [self._inputs.resolved(cell) for cell in cells(self.spec.sweep)]
        except CombinationError as error:
            raise InvalidSubmissionError([Problem(error.field, str(error))]) from None
        self._defaults = _overlay(_pipeline_defaults(self.pipeline), self.given)
        self._sizes: dict[str, InputSize] = {}
        self._shapes: dict[object, Shape] = {}

    def images(self, rows: Iterable[Row]) -> Iterator[PlannedImage]:
        """The images of the rows, which are read once and not kept.

        After the first problem no more images come, and in the end InvalidSubmissionError is raised: with the first
        problems, once all rows were read or very many problems were found.
        """
        known = len(rows) if isinstance(rows, Sequence) and self.spec.templates == "none" else 0
        self._check_count(known * self.spec.images_per_prompt, exact=True)
        found, said_by_rows = Problems(), set(self.spec.sweep)
        expanded = enumerate(_with_templates(self.spec, self.seed, rows, self._find_words, found, self._max_images))
        count = 0
        # In portions, so that the pictures that rows name are looked up together.
        while found.total < MAX_PROBLEMS_COUNTED and (portion := [*islice(expanded, ROWS_AT_ONCE)]):
            resolved = [(number, row, values) for number, row in portion if (values := self._resolved(row, found))]
            self._look_up()
            for number, row, values in resolved:
                said_by_rows.update(values)
                try:
                    images = self._images_of(number, row, values, count)
                except InvalidSubmissionError as error:
                    found.add(*error.problems)
                    continue
                self._check_count((number + 1) * self.spec.images_per_prompt)
                if not found.total:
                    yield from images if self.spec.first is None else images[: max(self.spec.first - count, 0)]
                count += len(images)
        if found.total:
            # What is wrong with what all rows have in common is refused once; what the rows add may mend it.
            if said_by_rows <= {"prompt", "seed"} and (once := self._said_once_problems()):
                raise InvalidSubmissionError(once)
            raise found.error()
        if not count:
            raise InvalidSubmissionError([Problem("prompt", "there is none; write at least one")])

    @property
    def inputs(self) -> Collection[str]:
        """The uploaded pictures that go in, of all rows so far."""
        return {ref for ref in self._sizes if ref.startswith("sha256:")}

    def _resolved(self, row: Row, found: "Problems") -> dict[str, Any] | None:
        """The row's values with content in place of names; None if it has problems, which are then among ``found``."""
        if row.problems:
            found.add(*row.problems)
            return None
        try:
            return self._inputs.resolved(row.values)
        except CombinationError as error:
            found.add(Problem(error.field, str(error), row.line))
            return None

    def _look_up(self) -> None:
        """Learn the sizes of the pictures that were named since the last time."""
        if unknown := self._inputs.named - self._sizes.keys():
            self._sizes.update(self._find_inputs(unknown))

    @property
    def jobs_named(self) -> set[int]:
        """The jobs whose pictures go in."""
        places = (job_picture(ref) for ref in self._inputs.named if INPUT_REF.fullmatch(ref))
        return {place[0] for place in places if place is not None}

    def _images_of(self, number: int, row: Row, values: Mapping[str, Any], index: int) -> list[PlannedImage]:
        """The images of one row, the ``number``-th from 0, whose first is the job's ``index``-th.

        Raises InvalidSubmissionError.
        """
        per_prompt = self.spec.images_per_prompt
        first_seed = self.seed + number * per_prompt
        likeness = _likeness(values)
        images: list[PlannedImage] = []
        for place, cell in enumerate(self._cells):
            if follows := _whole_jobs({**self.given, **values, **cell}):
                for offset in range(per_prompt):
                    placed = {**cell, **self._inputs.placed(follows, index + len(images))}
                    one = self._checked(row, values, placed, first_seed)
                    images.append(PlannedImage(one, one.parameters.prompt, one.parameters.seed + offset))
                continue
            said = {"seed": first_seed, **values, **cell}
            shape, own = self._shapes.get((place, likeness)), _own(said)
            if shape is None or own is None:
                shape = self._checked(row, values, cell, first_seed)
                self._keep(place, likeness, shape)
                own = shape.parameters.prompt, shape.parameters.seed
            prompt, seed = own
            if seed + per_prompt - 1 > MAX_SEED:
                message = f"{seed} + {per_prompt} images exceeds {MAX_SEED}"
                raise InvalidSubmissionError([Problem("seed", message, row.line)])
            images += [PlannedImage(shape, prompt, seed + offset) for offset in range(per_prompt)]
        return images

    def _keep(self, place: int, likeness: object, shape: Shape) -> None:
        # Weighted prompts are checked one by one.
        if shape.parameters.prompt_syntax == "plain":
            if len(self._shapes) >= MAX_SHAPES_KNOWN:
                self._shapes.clear()
            self._shapes[place, likeness] = shape

    def _checked(self, row: Row, values: Mapping[str, Any], cell: Mapping[str, Any], seed: int) -> Shape:
        """The parameters of one combination of a row, checked as a whole. Raises InvalidSubmissionError."""
        merged = _overlay(_overlay({**self._defaults, "seed": seed}, values), cell)
        if (missing := self._inputs.missing(merged, self._sizes)) is not None:
            raise InvalidSubmissionError([Problem(*missing, row.line)])
        if not self._sized and not {*values, *cell} & {"width", "height"}:
            merged |= _size_of_input(merged, self._sizes)
        try:
            parameters = ImageParameters.model_validate(merged)
        except ValidationError as error:
            raise InvalidSubmissionError([problem_of(details, row.line) for details in error.errors()]) from None
        if beyond := limit_problems(parameters, self._catalog, self.pipeline, row.line):
            raise InvalidSubmissionError(beyond)
        return Shape(parameters)

    def _check_count(self, prompts: int, *, exact: bool = False) -> None:
        """Raise InvalidSubmissionError if so many prompts, in all combinations, are too many images."""
        count = prompts * len(self._cells)
        if count > self._max_images:
            said = f"{count:,}" if exact else f"more than {self._max_images:,}"
            message = f"would have {said} images, and at most {self._max_images:,} are taken; make several jobs"
            raise InvalidSubmissionError([Problem("job", message)])
        if self.seed + prompts - 1 > MAX_SEED:
            raise InvalidSubmissionError([Problem("seed", f"{self.seed} + {prompts} images exceeds {MAX_SEED}")])

    def _said_once_problems(self) -> list[Problem]:
        """What is wrong with what all rows have in common."""
        try:
            placed = self._inputs.placed(_whole_jobs(self.given), 0)
            image = ImageParameters.model_validate({**self._defaults, **placed, "prompt": "any", "seed": 0})
        except ValidationError as error:
            return [problem_of(details, None) for details in error.errors()]
        return limit_problems(image, self._catalog, self.pipeline, None)


def _with_templates(
    spec: JobSpec, seed: int, rows: Iterable[Row], find_words: FindWords, found: Problems, max_prompts: int
) -> Iterator[Row]:
    """The rows, each once for every prompt that it stands for."""
    if spec.templates == "none":
        yield from rows
        return
    templates = Templates(find_words())
    count = 0
    for number, row in enumerate(rows):
        prompt = row.values.get("prompt")
        if not isinstance(prompt, str):
            yield row
            continue
        try:
            prompts = (
                templates.all(prompt)
                if spec.templates == "all"
                else templates.some(prompt, spec.template_samples, seed + number)
            )
        except TemplateError as error:
            found.add(Problem("prompt", str(error), row.line))
            continue
        count += len(prompts)
        if count > max_prompts:
            raise InvalidSubmissionError([Problem("templates", f"stand for more than {max_prompts:,} prompts")])
        for one in prompts:
            yield Row({**row.values, "prompt": one}, row.line)


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
        raise InvalidSubmissionError([problem_of(details, None) for details in error.errors()]) from None
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
                problems += [problem_of(details, None, name) for details in error.errors()]
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


def _likeness(values: Mapping[str, Any]) -> object:
    """Equal for rows that differ by prompt and seed alone."""
    if len(values) - ("prompt" in values) - ("seed" in values) == 0:
        return None
    return repr([(name, value) for name, value in sorted(values.items()) if name not in ("prompt", "seed")])


def _own(values: Mapping[str, Any]) -> tuple[str, int] | None:
    """Prompt and seed; None if they are not what they must be: the whole check says how."""
    try:
        return _FIELDS["prompt"].validate_python(values["prompt"]), _FIELDS["seed"].validate_python(values["seed"])
    except (ValidationError, KeyError):
        return None


def _whole_jobs(values: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """The fields in which each image gets another picture of a job."""
    return {
        field: values[field]
        for field in INPUT_FIELDS
        if values.get(field) and any(map(WHOLE_JOB.fullmatch, listed(values[field])))
    }


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
        known = isinstance(ref, str) and (INPUT_REF.fullmatch(ref) or WHOLE_JOB.fullmatch(ref))
        if not isinstance(ref, str) or not known:
            raise CombinationError(
                field, f"{str(name)[:80]!r} was not uploaded; upload it, and name it under inputs or by its sha256"
            )
        self.named.add(ref)
        return ref

    def placed(self, fields: Mapping[str, str | list[str]], index: int) -> dict[str, str | list[str]]:
        """What these fields are for the image with this index: of whole jobs its picture, the others as they are."""

        def one(ref: str) -> str:
            placed = f"{ref}/{index}" if WHOLE_JOB.fullmatch(ref) else ref
            self.named.add(placed)
            return placed

        return {
            field: [one(ref) for ref in value] if isinstance(value, list) else one(value)
            for field, value in fields.items()
        }

    def missing(self, values: Mapping[str, Any], sizes: Mapping[str, InputSize]) -> tuple[str, str] | None:
        """The first field that names a picture which is not in the store."""
        for field in INPUT_FIELDS:
            value = values.get(field)
            for ref in () if value is None else value if isinstance(value, list) else [value]:
                if ref not in sizes:
                    return field, _absent(ref)
        return None


def _absent(ref: str) -> str:
    if not ref.startswith("job:"):
        return f"{ref} is not in the store; upload it first"
    job, _, index = ref.removeprefix("job:").partition("/")
    return f"job {job} has no image {index}; its images are counted from 0" if index else f"there is no job {job}"
