"""What is submitted, as the request that carries it: a JSON body, a form with a file, or a stream of JSON lines.

Up to ``MAX_JSON_ROWS`` rows are one JSON body. More of them go through a temporary file of compressed lines: memory
stays bounded, however many an iterator yields, and the request can be made again.
"""

import gzip
import json
import math
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import anyio.lowlevel

from farm.errors import InvalidSubmissionError, Problem
from producer.client.connection import Arguments
from producer.client.pictures import Uploads

Row = Mapping[str, Any]
Prompts = Iterable[str] | AsyncIterable[str]
Rows = Iterable[Row] | AsyncIterable[Row]

MAX_JSON_ROWS = 1_000
#: Compressed lines of about 100,000 short rows stay in memory.
MAX_SPOOL_BYTES = 4 * 2**20
CHUNK_BYTES = 2**18


@asynccontextmanager
async def submission(
    uploads: Uploads, fields: Mapping[str, Any], prompts: Prompts | None, rows: Rows | None, file: Path | None
) -> AsyncIterator[Arguments]:
    """The arguments of the request that submits one of prompts, rows and file; all its pictures are uploaded.

    Raises ValueError unless there is exactly one, TypeError for a single prompt, InvalidSubmissionError for what JSON
    cannot say.
    """
    if sum(given is not None for given in (prompts, rows, file)) != 1:
        raise ValueError("Give one of prompts=[...], rows=[{...}] and file=...")
    if isinstance(prompts, str):
        raise TypeError("prompts are a list of strings: prompts=[...]")
    fields = await uploads.replaced(fields)
    if file is not None:
        with file.open("rb") as handle:
            form = await _form(uploads, fields, file)
            yield lambda: {"data": form, "files": {"file": (file.name, handle)}}
        return
    entries = _entries(uploads, rows if rows is not None else prompts or ())
    first = [entry async for entry in _at_most(MAX_JSON_ROWS + 1, entries)]
    if len(first) <= MAX_JSON_ROWS:
        body = encoded({**fields, "prompts" if rows is None else "rows": first})
        yield lambda: {"content": body, "headers": {"Content-Type": "application/json"}}
        return
    with tempfile.SpooledTemporaryFile(MAX_SPOOL_BYTES) as spool:
        await _write_lines(spool, first, entries)
        length, spec = str(spool.tell()), encoded(fields).decode()
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip", "Content-Length": length}
        yield lambda: {"content": _chunks(spool), "headers": headers, "params": {"spec": spec}}


def encoded(value: Any, line: int | None = None) -> bytes:
    """JSON; raises InvalidSubmissionError for what it cannot say. Numbers of NumPy are numbers, paths are text."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidSubmissionError([_problem_of(value, line, str(error))]) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is nothing that JSON can say")


def _problem_of(value: Any, line: int | None, message: str) -> Problem:
    """The field that is to blame, as well as it can be told."""
    for name, one in value.items() if isinstance(value, Mapping) else ():
        if isinstance(one, float) and not math.isfinite(one):
            return Problem(str(name), f"is {one}; leave it out where there is no value", line)
        if name == "rows":
            for number, row in enumerate(one, start=1):
                try:
                    encoded(row, number)
                except InvalidSubmissionError as error:
                    return error.problems[0]
    return Problem("body", message, line)


async def _form(uploads: Uploads, fields: Mapping[str, Any], file: Path) -> dict[str, str]:
    """The fields beside a file, with the pictures that it names. Its paths start beside it."""
    inputs = dict(fields.get("inputs") or {})
    # Only tables and objects can name pictures, and only then is it worth reading them here.
    if file.suffix == ".xlsx" or (file.suffix != ".txt" and b"image" in file.read_bytes()):
        from farm.spec import listed
        from producer.client.pictures import INPUT_FIELDS
        from producer.intake import read_file

        beside = uploads.beside(file)
        for row in read_file(file.name, file.read_bytes(), fields.get("columns")).rows:
            for field in INPUT_FIELDS:
                for name in listed(row.values[field]) if row.values.get(field) is not None else ():
                    if isinstance(name, str) and name not in inputs and (ref := await beside.named(name)):
                        inputs[name] = ref
    said = {**fields, "inputs": inputs} if inputs else fields
    return {name: _form_value(value) for name, value in said.items()}


def _form_value(value: Any) -> str:
    if value is None:
        return "none"
    return encoded(value).decode() if isinstance(value, Mapping | list | tuple) else str(value)


async def _entries(uploads: Uploads, source: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for entry in source if isinstance(source, AsyncIterable) else _gently(source):
        yield await uploads.replaced(entry) if isinstance(entry, Mapping) else entry


async def _gently(source: Iterable[Any]) -> AsyncIterator[Any]:
    """All of an iterable, with room for others between its entries."""
    for number, entry in enumerate(source):
        if number % 100 == 0:
            await anyio.lowlevel.checkpoint()
        yield entry


async def _at_most(count: int, entries: AsyncIterator[Any]) -> AsyncIterator[Any]:
    while count and (entry := await anext(entries, None)) is not None:
        count -= 1
        yield entry


async def _write_lines(
    spool: "tempfile.SpooledTemporaryFile[bytes]", first: list[Any], rest: AsyncIterator[Any]
) -> None:
    number = 0
    # Without the time, so that the same rows are the same bytes.
    with gzip.GzipFile(fileobj=spool, mode="wb", compresslevel=6, mtime=0) as lines:
        for entry in first:
            lines.write(encoded(entry, number := number + 1) + b"\n")
        first.clear()
        async for entry in rest:
            lines.write(encoded(entry, number := number + 1) + b"\n")


async def _chunks(spool: IO[bytes]) -> AsyncIterator[bytes]:
    spool.seek(0)
    while chunk := spool.read(CHUNK_BYTES):
        yield chunk
