"""Reads large JSON submissions: the entries of ``prompts`` or ``rows`` one by one, as the lines of a stream are."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import ijson
from werkzeug.exceptions import BadRequest

from dashboard.api.bodies import Json, require_types
from dashboard.api.schemas.submission import ENTRIES, RowBody
from farm.errors import InvalidSubmissionError, Problem
from producer.intake import Row, object_row
from producer.streams import DigestingReader

_BEGINS, _ENDS = ("start_map", "start_array"), ("end_map", "end_array")
#: Most rows say nothing else, and these two are quickly looked at.
_PLAIN = {"prompt": str, "seed": int}


class LargeBody:
    """A JSON object on disk, whose entries are read when they are asked for."""

    def __init__(self, stream: IO[bytes]) -> None:
        reader = DigestingReader(stream)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the request
        shutil.copyfileobj(reader, self._file)
        self.sha256 = reader.digest()
        self.entries: str | None = None
        """What there is of ``prompts`` and ``rows``; known when the fields are read."""

    def close(self) -> None:
        """Remove it from the disk."""
        self._file.close()

    def rows(self) -> Iterator[Row]:
        """Its entries; one that cannot be read is a row with problems."""
        if self.entries is None:
            return
        self._file.seek(0)
        with _readable():
            for number, entry in enumerate(ijson.items(self._file, f"{self.entries}.item", use_float=True), start=1):
                yield _row(entry, number, self.entries)

    def read_fields(self) -> Json:
        """All but the entries. Raises BadRequest for what is no JSON, InvalidSubmissionError for what is no object."""
        with _readable():
            return self._read_fields()

    def _read_fields(self) -> Json:
        self._file.seek(0)
        events = ijson.basic_parse(self._file, use_float=True)
        fields: Json = {}
        if next(events)[0] != "start_map":
            raise InvalidSubmissionError([Problem("body", 'must be an object such as {"prompts": ["a fox"]}')])
        for event, name in events:
            if event == "end_map":
                break
            if name not in ENTRIES:
                fields[name] = _value(events)
            elif self.entries not in (None, name):
                message = "cannot be given together with prompts; make the prompts rows too"
                raise InvalidSubmissionError([Problem("rows", message)])
            else:
                self.entries = name
                if next(events)[0] != "start_array":
                    raise InvalidSubmissionError([Problem(name, f"must be a list of {ENTRIES[name]}")])
                _skip(events)
        # What follows the object is read, too: more of it is no JSON.
        for _ in events:
            pass
        return fields


def _value(events: Iterator[tuple[str, Any]]) -> Any:
    """The value that comes next."""
    builder, depth = ijson.ObjectBuilder(), 0
    for event, value in events:
        builder.event(event, value)
        depth += (event in _BEGINS) - (event in _ENDS)
        if not depth:
            break
    return builder.value


def _skip(events: Iterator[tuple[str, Any]]) -> None:
    """Pass by the rest of a list that has begun."""
    depth = 1
    for event, _ in events:
        depth += (event in _BEGINS) - (event in _ENDS)
        if not depth:
            return


def _row(entry: Any, number: int, kind: str) -> Row:
    try:
        if kind == "prompts":
            entry = {"prompt": entry}
        elif not isinstance(entry, dict):
            raise InvalidSubmissionError([Problem("rows", f"must be a list of {ENTRIES['rows']}", number)])
        if any(type(value) is not _PLAIN.get(name) for name, value in entry.items()):
            require_types(RowBody, json.dumps(entry).encode(), number)
        return object_row(entry, number)
    except InvalidSubmissionError as error:
        return Row({}, number, tuple(error.problems))


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except ijson.JSONError as error:
        raise BadRequest(f"The body is no JSON: {error}.") from None
