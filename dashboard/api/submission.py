"""Reads submissions from request bodies: JSON, a form with a file, or a stream of JSON lines."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flask import g, request
from pydantic import ValidationError
from werkzeug.exceptions import UnsupportedMediaType

from dashboard.api.bodies import Json, parse_object, pointer, require_types
from dashboard.api.large_json import LargeBody
from dashboard.api.schemas.submission import ENTRIES, STREAMS, SubmissionBody
from farm.errors import InvalidSubmissionError, Problem
from farm.spec import JobSpec
from farm.storage import sha256
from producer.intake import Intake, Row, object_row, read_file
from producer.streams import DigestingReader, read_stream

#: Larger JSON bodies are read bit by bit.
MAX_WHOLE_BYTES = 8 * 2**20
#: What a job says of how long its pictures are kept.
KEEP = ("keep_days", "keep_starred")
#: Fields of a job that may change after it was accepted.
CHANGEABLE = ("priority", "name", "max_devices", "deadline", *KEEP)


@dataclass(frozen=True, slots=True)
class Sent:
    """A submission as it was sent."""

    fields: Json
    intake: Intake
    digest: Callable[[], str]
    """The hash of all that was sent."""


def read_submission() -> Sent:
    """The submission of this request. Raises InvalidSubmissionError, BadRequest and UnsupportedMediaType.

    Problems of a JSON body, found here or later, are answered with their place in it.
    """
    if request.mimetype == "application/json":
        return _read_json() if (request.content_length or 0) <= MAX_WHOLE_BYTES else _read_large_json()
    if request.mimetype == "multipart/form-data":
        return _read_form()
    if request.mimetype in STREAMS:
        return _read_stream()
    raise UnsupportedMediaType(
        "Send application/json, application/x-ndjson, or multipart/form-data with the part 'file'."
    )


def split_json(body: Json) -> tuple[Json, Intake]:
    """The job's fields and its rows. Entries are counted from 1, like the lines of a file."""
    if "prompts" in body and "rows" in body:
        raise _refusal("rows", "cannot be given together with prompts; make the prompts rows too")
    fields = dict(body)
    prompts, rows = fields.pop("prompts", []), fields.pop("rows", [])
    if not isinstance(prompts, list):
        raise _refusal("prompts", f"must be a list of {ENTRIES['prompts']}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _refusal("rows", f"must be a list of {ENTRIES['rows']}")
    read = [Row({"prompt": prompt}, number) for number, prompt in enumerate(prompts, start=1)]
    read += [object_row(row, number) for number, row in enumerate(rows, start=1)]
    return fields, Intake(read)


def read_changes(body: Json) -> Json:
    """What is to become of a job, as ``change_job`` takes it. Raises InvalidSubmissionError."""
    for name in body:
        if name not in CHANGEABLE:
            raise _refusal(name, f"cannot be changed; {', '.join(CHANGEABLE)} can")
    if not body:
        raise _refusal("body", f"changes nothing; give one of {', '.join(CHANGEABLE)}")
    try:
        spec = JobSpec.model_validate(body)
    except ValidationError as error:
        details = error.errors()[0]
        raise _refusal(str(details["loc"][0]), details["msg"].lower()) from None
    changes = {name: getattr(spec, name) for name in body if name not in KEEP}
    keep = {name: getattr(spec, name) for name in KEEP if name in body}
    return {**changes, "keep": keep} if keep else changes


def json_pointer(body: Json, problem: Problem) -> str | None:
    """Where in the body the problem lies (RFC 6901); None when it concerns what is not there."""
    if problem.line is None:
        return pointer(problem.field) if problem.field in body else None
    place = problem.line - 1
    if not body.get("rows"):
        return pointer("prompts", place)
    row = body["rows"][place]
    known = isinstance(row, dict) and problem.field in row
    return pointer("rows", place, problem.field) if known else pointer("rows", place)


def _read_json() -> Sent:
    data = request.get_data(cache=False)
    body = parse_object(data)
    g.pointer = partial(json_pointer, body)
    require_types(SubmissionBody, data)
    return Sent(*split_json(body), lambda: _digest("json", sha256(data)))


def _read_large_json() -> Sent:
    """The same in little memory, however long the lists are."""
    body = LargeBody(request.stream)
    g.large_body = body
    fields = body.read_fields()

    def place(problem: Problem) -> str | None:
        if problem.line is not None:
            return pointer(body.entries or "", problem.line - 1)
        return pointer(problem.field) if problem.field in fields else None

    g.pointer = place
    require_types(SubmissionBody, json.dumps(fields).encode())
    return Sent(fields, Intake(body.rows()), lambda: _digest("json", body.sha256))


def close_large_body(_error: BaseException | None = None) -> None:
    """At the end of a request: remove what of it was kept on disk."""
    if (body := g.pop("large_body", None)) is not None:
        body.close()


def _read_form() -> Sent:
    """The job's fields from a form's fields, its rows from the part ``file``."""
    file = request.files.get("file")
    if file is None:
        raise _refusal("file", "is missing; send the prompts as the part 'file'")
    fields: Json = request.form.to_dict()
    data, name = file.read(), file.filename or ""
    said = json.dumps([sorted(fields.items()), name])
    columns = read_columns(fields.pop("columns", ""))
    return Sent(fields, read_file(name, data, columns), lambda: _digest("form", said, data))


def _read_stream() -> Sent:
    """Rows as JSON lines, and the job's fields as the JSON object ``spec`` of the query string."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaType("Send the lines as they are, or with Content-Encoding: gzip.")
    text = request.args.get("spec", "{}")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise _refusal("spec", 'must be a JSON object of the job\'s fields, such as {"num_inference_steps": 30}')
    reader = DigestingReader(request.stream)
    intake = read_stream(reader, compressed=encoding == "gzip")
    return Sent(fields, intake, lambda: _digest("stream", encoding, text, reader.digest()))


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        whole.update(b"%d:" % len(data))
        whole.update(data)
    return whole.hexdigest()


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


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
