"""What a submission would become, without submitting it: its table as it was read, with every problem in its place."""

import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from csv import writer
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from farm.batch_sizes import BatchSizes
from farm.catalog import Catalog, Pipeline
from farm.errors import MAX_PROBLEMS_SHOWN, InvalidSubmissionError, Problem
from producer.batching import PlannedBatch, batches_of
from producer.expand import FindInputs, FindWords, Plan, plan_job
from producer.intake import ALIASES, KNOWN, parameter_of, read_file, suggestion
from producer.tables import TABLES, decode, numbered_lines, read_cells

#: Rows that are shown, beside those that have problems.
ROWS_SHOWN = 100
#: Columns that can be told which parameter they are.
MAX_COLUMNS_MAPPED = 60

FindSizes = Callable[[Pipeline, int | None], BatchSizes]
"""How large batches get, of a pipeline and what the job says."""

#: What the titles of other programs' tables mean here, as far as one may guess.
_MEANINGS = {
    "prompt": ("text", "caption", "description", "positive", "positive_prompt", "prompt_text", "prompts", "title"),
    "negative_prompt": ("negative", "neg", "negative_text", "undesired", "without"),
    "guidance_scale": ("cfg", "cfg_scale", "guidance", "scale"),
    "num_inference_steps": ("n_steps", "num_steps", "sampling_steps", "inference_steps"),
    "scheduler": ("sampler", "sampler_name", "sampling_method"),
    "size": ("resolution", "dimensions", "image_size"),
    "image": ("init_image", "image_path", "picture", "file", "filename", "source", "input_image"),
    "mask_image": ("mask", "mask_path"),
    "control_image": ("control", "hint_image"),
    "strength": ("denoising_strength", "denoise"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of what was given: its title, and the parameter that it sets (empty: none)."""

    title: str
    parameter: str
    guess: str = ""
    """What it probably means, where its title is no parameter's name; only ever a suggestion."""


@dataclass(slots=True)
class ShownRow:
    """A row as it was given, and what is wrong with it."""

    line: int
    cells: list[str]
    problems: list[str] = field(default_factory=list)
    """Those that belong to no column."""
    cell_problems: dict[int, list[str]] = field(default_factory=dict)
    """Those of its cells, by the column's position."""


@dataclass(slots=True)
class Sheet:
    """What was given, as a table."""

    columns: list[Column]
    rows: list[ShownRow]
    """The first ones, and those with problems."""
    row_count: int


@dataclass(slots=True)
class Preview:
    """A submission before it is one."""

    sheet: Sheet | None
    problems: list[Problem]
    """Those that lie in no row that is shown."""
    problem_count: int
    """All of them."""
    plan: Plan | None = None
    batches: Sequence[PlannedBatch] = ()
    ignored_columns: Sequence[str] = ()
    unused_inputs: Sequence[str] = ()
    """Uploaded pictures that no image uses, by their names."""
    lacks_prompt: bool = False
    """Whether no column is the prompt: somebody must say which one is."""


def preview_job(
    catalog: Catalog,
    default_pipeline: str,
    fields: Mapping[str, Any],
    filename: str,
    data: bytes,
    columns: Mapping[str, str],
    find_inputs: FindInputs,
    find_words: FindWords,
    find_sizes: FindSizes,
) -> Preview:
    """What submitting this file with these fields would do. Nothing is written, and nothing is raised."""
    sheet: tuple[list[Column], list[tuple[int, list[str]]]] | None = None
    try:
        sheet = _read_sheet(filename, data, columns)
        if _lacks_prompt(filename, sheet[0]):
            return Preview(_shown(*sheet, [])[0], [], 0, lacks_prompt=True)
        intake = read_file(filename, data, columns)
        plan = plan_job(catalog, default_pipeline, fields, intake, find_inputs, find_words)
    except InvalidSubmissionError as error:
        if sheet is None:
            return Preview(None, error.problems, error.total)
        shown, elsewhere = _shown(*sheet, error.problems)
        return Preview(shown, elsewhere, error.total)
    batches = batches_of(plan, find_sizes(plan.pipeline, plan.spec.batch_size))
    shown, _ = _shown(*sheet, [])
    return Preview(shown, [], 0, plan, batches, intake.ignored_columns, _unused(plan))


def columns_of(filename: str, data: bytes) -> list[Column]:
    """The columns of a table, as their titles name them; none if it cannot be read, or is no table."""
    if _ending(filename) not in TABLES:
        return []
    try:
        _, header = next(iter(read_cells(data, _ending(filename))), (1, []))
    except InvalidSubmissionError:
        return []
    return [_column(title, {}) for title in header]


def guess_format(text: str) -> str:
    """What pasted text probably is: ``jsonl``, ``tsv``, ``csv``, or ``txt`` (one prompt per line)."""
    lines = [line for _, line in zip(range(20), text.lstrip().split("\n"), strict=False) if line.strip()]
    if not lines:
        return "txt"
    try:
        if all(isinstance(json.loads(line), dict) for line in lines[:1]):
            return "jsonl"
    except (ValueError, RecursionError):
        pass
    for ending, separator in (("tsv", "\t"), ("csv", ",")):
        titles = [title.strip().strip('"') for title in lines[0].split(separator)]
        known = [title for title in titles if parameter_of(title, {}) in KNOWN]
        # A prompt holds commas, too: only a line with a parameter's name between them is a header.
        if len(lines) > 1 and len(titles) > 1 and (known or ending == "tsv"):
            return ending
    if len(lines) > 1 and lines[0].strip().lower() == "prompt":
        return "csv"
    return "txt"


def as_text(filename: str, data: bytes) -> tuple[str, str]:
    """A file's content as text, and the format of that: a spreadsheet becomes csv. Raises InvalidSubmissionError."""
    ending = _ending(filename)
    if ending != "xlsx":
        return decode(data), ending
    out = io.StringIO()
    rows = writer(out, lineterminator="\n")
    for _, cells in read_cells(data, ending):
        rows.writerow(cells)
    return out.getvalue(), "csv"


def guess_parameter(title: str) -> str:
    """The parameter that a title of another program's table probably means; empty if there is no telling."""
    name = title.strip().lower().replace(" ", "_").replace("-", "_")
    for parameter, names in _MEANINGS.items():
        if name in names:
            return parameter
    return suggestion(name) or ""


def _ending(filename: str) -> str:
    return PurePath(filename).suffix.lstrip(".").lower()


def _read_sheet(
    filename: str, data: bytes, columns: Mapping[str, str]
) -> tuple[list[Column], list[tuple[int, list[str]]]]:
    """Columns and filled rows of a file, as they are."""
    ending = _ending(filename)
    if ending in TABLES:
        lines = read_cells(data, ending)
        _, header = next(lines, (1, []))
        rows = [(line, cells) for line, cells in lines if any(cell.strip() for cell in cells)]
        return [_column(title, columns) for title in header], rows
    if ending == "jsonl":
        return _read_objects(decode(data))
    filled = [(number, [line]) for number, line in numbered_lines(decode(data)) if line.strip()]
    return [Column("prompt", "prompt")], filled


def _read_objects(text: str) -> tuple[list[Column], list[tuple[int, list[str]]]]:
    titles: dict[str, int] = {}
    rows = []
    for number, line in numbered_lines(text):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = line
        if not isinstance(values, dict):
            values = {"prompt": values if isinstance(values, str) else line}
        cells = [""] * len(titles)
        for title, value in values.items():
            if title not in titles:
                titles[title] = len(titles)
                cells.append("")
            cells[titles[title]] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append((number, cells))
    return [_column(title, {}) for title in titles], rows


def _column(title: str, columns: Mapping[str, str]) -> Column:
    name = parameter_of(title, columns)
    if title in columns or name in KNOWN:
        return Column(title, name)
    return Column(title, "", guess_parameter(title))


def _lacks_prompt(filename: str, columns: Sequence[Column]) -> bool:
    return _ending(filename) in TABLES and bool(columns) and all(column.parameter != "prompt" for column in columns)


def _shown(
    columns: list[Column], rows: Sequence[tuple[int, list[str]]], problems: Sequence[Problem]
) -> tuple[Sheet, list[Problem]]:
    """The sheet with problems in their places, and those that have none."""
    of_line: dict[int | None, list[Problem]] = defaultdict(list)
    for problem in problems:
        of_line[problem.line].append(problem)
    shown = []
    for number, (line, cells) in enumerate(rows):
        if number >= ROWS_SHOWN and line not in of_line:
            continue
        row = ShownRow(line, cells)
        for problem in of_line.pop(line, ()):
            place = _place(columns, problem.field)
            if place is None:
                row.problems.append(f"{problem.field}: {problem.message}")
            else:
                row.cell_problems.setdefault(place, []).append(problem.message)
        shown.append(row)
    elsewhere = [problem for found in of_line.values() for problem in found]
    return Sheet(columns, shown[: ROWS_SHOWN + MAX_PROBLEMS_SHOWN], len(rows)), elsewhere


def _place(columns: Sequence[Column], name: str) -> int | None:
    for place, column in enumerate(columns):
        sets = ALIASES.get(column.parameter, column.parameter)
        if name in (sets, column.title.strip()) or (sets == "size" and name in ("width", "height")):
            return place
    return None


def _unused(plan: Plan) -> list[str]:
    if not plan.spec.inputs:
        return []
    used = {ref for image in plan.planned for ref in image.shape.parameters.inputs}
    return [name for name, ref in plan.spec.inputs.items() if ref not in used]
