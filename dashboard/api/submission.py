"""Reads submissions from request bodies: JSON, or a form with a file."""

import json
from typing import Any

from flask import request
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest

from farm.errors import InvalidSubmissionError, Problem
from farm.spec import JobSpec
from producer.intake import Intake, Row, object_row, read_file

Json = dict[str, Any]

#: Fields of a job that may change after it was accepted.
CHANGEABLE = ("priority", "name")


def read_json_object() -> Json:
    """The body as a JSON object; raises BadRequest when it is no JSON, InvalidSubmissionError when no object."""
    try:
        body = json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is no JSON: {error}.") from None
    if not isinstance(body, dict):
        raise _refusal("body", 'must be an object such as {"prompts": ["a fox"]}')
    return body


def split_json(body: Json) -> tuple[Json, Intake]:
    """The job's fields and its rows. Entries are counted from 1, like the lines of a file."""
    if "prompts" in body and "rows" in body:
        raise _refusal("rows", "cannot be given together with prompts; make the prompts rows too")
    fields = dict(body)
    prompts, rows = fields.pop("prompts", []), fields.pop("rows", [])
    if not isinstance(prompts, list):
        raise _refusal("prompts", "must be a list of strings")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _refusal("rows", 'must be a list of objects such as {"prompt": "a fox"}')
    read = [Row({"prompt": prompt}, number) for number, prompt in enumerate(prompts, start=1)]
    read += [object_row(row, number) for number, row in enumerate(rows, start=1)]
    return fields, Intake(read)


def read_changes(body: Json) -> Json:
    """What is to become of a job: ``priority`` and ``name``. Raises InvalidSubmissionError."""
    for name in body:
        if name not in CHANGEABLE:
            raise _refusal(name, f"cannot be changed; {' and '.join(CHANGEABLE)} can")
    if not body:
        raise _refusal("body", "changes nothing; give a priority or a name")
    try:
        spec = JobSpec.model_validate(body)
    except ValidationError as error:
        details = error.errors()[0]
        raise _refusal(str(details["loc"][0]), details["msg"].lower()) from None
    return {name: getattr(spec, name) for name in body}


def json_pointer(body: Json, problem: Problem) -> str | None:
    """Where in the body the problem lies (RFC 6901); None when it concerns what is not there."""
    if problem.line is None:
        return _pointer(problem.field) if problem.field in body else None
    place = problem.line - 1
    if "rows" not in body:
        return _pointer("prompts", place)
    return _pointer("rows", place, problem.field) if problem.field in body["rows"][place] else _pointer("rows", place)


def read_form() -> tuple[Json, Intake]:
    """The job's fields from a form's fields, its rows from the part ``file``."""
    file = request.files.get("file")
    if file is None:
        raise _refusal("file", "is missing; send the prompts as the part 'file'")
    fields = request.form.to_dict()
    columns = read_columns(fields.pop("columns", ""))
    return fields, read_file(file.filename or "", file.read(), columns)


def read_columns(text: str) -> dict[str, str]:
    """Which parameter each column is, from JSON: titles to names. Raises InvalidSubmissionError."""
    if not text.strip():
        return {}
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError):
        columns = None
    if not isinstance(columns, dict) or not all(isinstance(name, str) for name in columns.values()):
        raise _refusal("columns", 'must be an object of titles and parameters, such as {"Text": "prompt"}')
    return columns


def _pointer(*steps: str | int) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
