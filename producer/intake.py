"""Reads files of prompts: txt, csv, tsv, jsonl and xlsx become rows that remember their line.

A row sets parameters for its own images; ``farm.spec.ROW_FIELDS`` lists them. ``size`` stands for width and height,
``steps`` for ``num_inference_steps``. Nothing is guessed: a column that is no parameter is reported as ignored,
and one that looks like a misspelt parameter is refused.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any

from farm.combinations import CombinationError
from farm.errors import InvalidSubmissionError, Problem
from farm.spec import ROW_FIELDS, ImageParameters
from producer.tables import TABLES, Cells, decode, numbered_lines, read_cells, refusal

FORMATS = ("txt", "csv", "tsv", "jsonl", "xlsx")
ALIASES = {
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "denoising_end": "refiner_split",
    "denoising_start": "refiner_split",
}
#: Parameters for which null says something: a default of the pipeline that is not wanted.
NULLABLE = tuple(name for name, field in ImageParameters.model_fields.items() if field.default is None)
_TEXTS = ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2")
#: What a column, or a field of an object, may be called.
KNOWN = (*ROW_FIELDS, *ALIASES, "size")
_IS_KNOWN = frozenset(KNOWN)
_SIZE = re.compile(r"\s*(\d+)\s*[xX]\s*(\d+)\s*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a submission: the parameters that it sets, and the line of the file that it came from."""

    values: dict[str, Any]
    line: int | None = None
    problems: tuple[Problem, ...] = ()
    """What keeps the line from being read, where the others are read all the same."""


@dataclass(slots=True)
class Intake:
    """The rows of a submission and the columns that mean nothing to the farm."""

    rows: Iterable[Row]
    """A stream's are read once."""
    ignored_columns: list[str] = field(default_factory=list)


def read_file(filename: str, data: bytes, columns: Mapping[str, str] | None = None) -> Intake:
    """Parse a file by its name's ending.

    ``columns`` says for titles of a table which parameter they are; an empty one leaves the column out.

    Raises InvalidSubmissionError for an unknown ending, bytes that are not UTF-8, NUL characters, a missing
    prompt column, misspelt columns, malformed JSON and a file without a prompt.
    """
    ending = PurePath(filename).suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise refusal("file", f"{filename!r} ends in {ending!r}; the farm reads {', '.join(FORMATS)}")
    if ending in TABLES:
        intake = _read_table(read_cells(data, ending), columns or {})
    else:
        text = decode(data)
        intake = _read_jsonl(text) if ending == "jsonl" else _read_lines(text)
    if not intake.rows:
        raise refusal("prompt", "the file holds no prompt; write at least one", line=1)
    return intake


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in pixels of ``1024x768``; raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no size; write width x height, such as 1024x1024")
    return int(match[1]), int(match[2])


def canonical(values: dict[str, Any]) -> dict[str, Any]:
    """The values under the names of the spec: aliases resolved, ``size`` taken apart. Raises CombinationError.

    Text cannot say null, so ``none`` stands for it where null has a meaning: a split that is none.
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        if name == "size":
            continue
        canonical_name = ALIASES.get(name, name)
        if canonical_name in result and result[canonical_name] != value:
            raise CombinationError(name, f"and {canonical_name} say the same thing differently; leave one out")
        is_none = isinstance(value, str) and value.strip().lower() == "none"
        none = is_none and canonical_name in NULLABLE and canonical_name not in _TEXTS
        result[canonical_name] = None if none else value
    if "size" in values:
        try:
            result["width"], result["height"] = parse_size(str(values["size"]))
        except ValueError as error:
            raise CombinationError("size", str(error)) from None
    return result


def suggestion(name: str, known: tuple[str, ...] = KNOWN) -> str | None:
    """The known name that ``name`` is probably a misspelling of."""
    matches = difflib.get_close_matches(name.lower().replace(" ", "_").replace("-", "_"), known, n=1, cutoff=0.8)
    return matches[0] if matches else None


def _read_lines(text: str) -> Intake:
    return Intake([Row({"prompt": line}, number) for number, line in numbered_lines(text) if line.strip()])


def _read_table(lines: Iterator[Cells], mapping: Mapping[str, str]) -> Intake:
    """Rows under a header."""
    _, header = next(lines, (1, []))
    columns, ignored = _read_header(header, mapping)
    filled = ((line, cells) for line, cells in lines if any(cell.strip() for cell in cells))
    return Intake(_all_rows(partial(_read_cells, cells, columns, len(header), line) for line, cells in filled), ignored)


def _all_rows(read: Iterator[Callable[[], Row]]) -> list[Row]:
    """The rows of a file, or every problem that keeps one from being read."""
    rows, problems = [], []
    for read_row in read:
        try:
            rows.append(read_row())
        except InvalidSubmissionError as error:
            problems += error.problems
    if problems:
        raise InvalidSubmissionError(problems)
    return rows


def _read_header(header: list[str], mapping: Mapping[str, str]) -> tuple[dict[int, str], list[str]]:
    for title, parameter in mapping.items():
        if title not in header:
            raise refusal("columns", f"there is no column {title[:60]!r}, only {', '.join(map(repr, header))}", line=1)
        if parameter and parameter not in KNOWN:
            raise refusal("columns", f"{title[:60]!r} cannot be {parameter[:60]!r}, which is no parameter", line=1)
    columns: dict[int, str] = {}
    ignored = []
    for position, title in enumerate(header):
        name = parameter_of(title, mapping)
        if title in mapping and not name:
            ignored.append(title.strip())
        elif name in KNOWN:
            if name in columns.values():
                raise refusal(name, "is the title of two columns; remove one", line=1)
            columns[position] = name
        elif (meant := suggestion(name)) is not None:
            raise refusal(title.strip(), f"is no parameter; did you mean {meant}?", line=1)
        else:
            ignored.append(title.strip())
    if not header:
        raise refusal("prompt", "the file is empty; its first line must name the columns", line=1)
    if "prompt" not in columns.values():
        raise refusal("prompt", f"there is no such column, only {', '.join(map(repr, header))}; add it", line=1)
    return columns, ignored


def parameter_of(title: str, mapping: Mapping[str, str]) -> str:
    """The parameter that a column of this title sets, if its name is one."""
    return mapping.get(title, title.strip().lower().replace(" ", "_"))


def _read_cells(cells: list[str], columns: dict[int, str], width: int, line: int) -> Row:
    if len(cells) > width:
        raise refusal("file", f"has {len(cells)} cells, but the header has {width} columns", line)
    values: dict[str, Any] = {}
    for position, name in columns.items():
        cell = cells[position] if position < len(cells) else ""
        # An empty cell leaves the parameter to the spec; an empty prompt is an error, and reported as one.
        if cell.strip() or name == "prompt":
            values[name] = cell
    return _row(values, line)


def _read_jsonl(text: str) -> Intake:
    return Intake(
        _all_rows(partial(read_object, line, number) for number, line in numbered_lines(text) if line.strip())
    )


def read_object(line: str, number: int) -> Row:
    """The row of a line of JSON: an object, or a string that is its prompt. Raises InvalidSubmissionError."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise refusal("file", f"is no JSON: {error}", number) from None
    if isinstance(values, str):
        values = {"prompt": values}
    if not isinstance(values, dict):
        raise refusal("file", 'must be an object such as {"prompt": "a fox"}, or a string', number)
    return object_row(values, number)


def object_row(values: dict[str, Any], line: int | None) -> Row:
    """A row from a JSON object. Raises InvalidSubmissionError for names that the farm does not know."""
    for name in values:
        if name not in _IS_KNOWN:
            meant = suggestion(name)
            remedy = f"did you mean {meant}?" if meant else f"the fields are {', '.join(KNOWN)}"
            raise refusal(name, f"is no parameter of an image; {remedy}", line)
    if "prompt" not in values:
        raise refusal("prompt", "is missing; add it", line)
    return _row(values, line)


def _row(values: dict[str, Any], line: int | None) -> Row:
    try:
        return Row(canonical(values), line)
    except CombinationError as error:
        raise refusal(error.field, str(error), line) from None
