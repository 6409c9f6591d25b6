"""What the form is filled with to submit something again: a job, one of its pictures, or a picture file of a farm."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from flask import url_for
from pydantic import ValidationError
from sqlalchemy import Engine

from dashboard.context import context
from dashboard.pages.job_form import FORM_FIELDS, MAX_TEXT_CHARACTERS
from dashboard.queries.images import get_image, list_images
from dashboard.queries.jobs import get_job
from farm.errors import InvalidSubmissionError, Problem
from farm.formats import NoParametersError, read_parameters
from farm.models import Job
from farm.spec import ImageParameters
from producer.again import Again, fields_of_image, form_text

#: Rows that the form takes into its text field; more come as a file.
MAX_ROWS = 2_000
_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Start:
    """A form that is filled already."""

    given: dict[str, str]
    notice: str
    rows_url: str | None = None
    """Where the rows are, if they are too many for the form."""


def from_job(job_id: int) -> Start:
    """All of a job. Raises NotFoundError."""
    farm = context()
    job = get_job(farm.engine, farm.board, job_id).job
    again = _again(job)
    images = list(islice(_images(farm.engine, job_id), MAX_ROWS + 1))
    given = _given(again.fields)
    notice = f"Filled in from job {job_id}. Change what you like, and submit it as a new job."
    too_many = f"Job {job_id} has {job.image_count:,} rows, more than fit here: download and choose them below."
    prompts = again.prompts(images) if job.image_count <= MAX_ROWS else None
    if prompts is not None:
        text = "\n".join(prompts)
        given |= {"prompts": text, "format": "txt"}
        if again.images_per_prompt > 1:
            given["images_per_prompt"] = str(again.images_per_prompt)
    elif job.image_count <= MAX_ROWS:
        text = "\n".join(_line(row) for row in again.rows(images))
        given |= {"prompts": text, "format": "jsonl"}
    else:
        return Start(given, too_many, url_for("submission.rows", job_id=job_id))
    if len(text) > MAX_TEXT_CHARACTERS:
        return Start({**given, "prompts": ""}, too_many, url_for("submission.rows", job_id=job_id))
    return Start(given, notice)


def from_image(job_id: int, index: int) -> Start:
    """One picture of a job, with all its parameters. Raises NotFoundError."""
    view = get_image(context().engine, job_id, index)
    notice = f"Filled in from picture {index + 1} of job {job_id}. Change what you like, and submit it as a new job."
    return _from_parameters(view.parameters, notice)


def from_picture(data: bytes) -> Start:
    """A picture file that tells what it was made from. Raises InvalidSubmissionError."""
    if not data:
        raise _refusal("is missing; choose a picture that a farm rendered")
    try:
        document: Any = read_parameters(data)
    except NoParametersError as error:
        raise _refusal(f"cannot be restored from: {error}") from None
    found = document.get("parameters") if isinstance(document, dict) else None
    try:
        image = ImageParameters.model_validate(found)
    except ValidationError:
        raise _refusal("tells of parameters that this farm does not know; it is of another version") from None
    given = _from_parameters(image.model_dump(mode="json"), "Filled in from the picture. Change what you like.")
    if image.pipeline not in {entry.name for entry in context().catalog}:
        del given.given["pipeline"]
    return given


def all_rows(job_id: int) -> Iterator[str]:
    """A job's rows as lines of JSON. Raises NotFoundError at once."""
    farm = context()
    job = get_job(farm.engine, farm.board, job_id).job
    return (_line(row) + "\n" for row in _again(job).rows(_images(farm.engine, job_id)))


def _again(job: Job) -> Again:
    return Again(context().catalog, job.pipeline, job.spec)


def _images(engine: Engine, job_id: int) -> Iterator[Mapping[str, Any]]:
    """The parameters of all images of a job, in the order of their index."""
    after: int | None = None
    while True:
        page = list_images(engine, job_id, _PAGE, after)
        yield from (view.parameters for view in page.entries)
        if not page.more:
            return
        after = page.entries[-1].image.index


def _from_parameters(image: Mapping[str, Any], notice: str) -> Start:
    given = _given(fields_of_image(image))
    prompt = image["prompt"]
    plain = "\n" not in prompt and "\r" not in prompt
    text = prompt if plain else _line({"prompt": prompt})
    return Start({**given, "prompts": text, "format": "txt" if plain else "jsonl"}, notice)


def _given(fields: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a job as the form's fields say them."""
    given = {name: form_text(name, value) for name, value in fields.items() if name in FORM_FIELDS}
    if "width" in fields and "height" in fields:
        given["size"] = f"{fields['width']}x{fields['height']}"
    if "refiner_split" in fields and fields["refiner_split"] is None:
        del given["refiner_split"]
        given["refiner"] = "no"
    return given


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _refusal(message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem("restore_file", message)])
