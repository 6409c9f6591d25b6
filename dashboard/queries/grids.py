"""A job's pictures by the values of two parameters: what varies, which values there are, what lies in which cell."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from dashboard.queries.jobs import JobView
from farm.errors import InvalidSubmissionError, Problem
from farm.models import Batch, Image
from farm.spec import ImageParameters
from farm.states import ImageState
from producer.intake import ALIASES, suggestion

#: Images that one grid is made from; a longer job is looked at part by part.
MAX_IMAGES = 20_000
#: Values of an axis that are shown at once.
MAX_VALUES = 60
#: Width and height as one axis.
SIZE = "size"


@dataclass(frozen=True, slots=True)
class Cell:
    """An image as a grid knows it."""

    job_id: int
    index: int
    state: ImageState
    sha256: str | None
    image_key: str | None
    thumbnail_key: str | None
    error: str | None
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """The value of a parameter as a label."""
        if name == SIZE:
            return f"{self.values['width']}x{self.values['height']}"
        return label(self.values.get(name))

    @property
    def removed(self) -> bool:
        """Whether its picture was removed."""
        return self.state is ImageState.COMPLETED and self.image_key is None

    @property
    def version(self) -> str | None:
        """As of ImageView."""
        return self.sha256 and self.sha256[:16]


@dataclass(frozen=True, slots=True)
class Grid:
    """One sheet: the values along both axes, and the image in each cell that has one."""

    x: str
    y: str | None
    columns: list[str]
    rows: list[str]
    cells: dict[tuple[int, int], Cell]
    """By (row, column)."""
    remaining: list[tuple[str, str]]
    """What else varies, and its value in this grid."""
    column_count: int
    row_count: int


@dataclass(frozen=True, slots=True)
class Grids:
    """All sheets of a choice of axes; there is one for each combination of what else varies."""

    x: str
    y: str | None
    names: list[str]
    """Parameters that can be an axis: those that vary, in the order of the sweep first."""
    labels: list[str]
    """What each sheet is of."""
    grid: Grid
    number: int
    next_after: int | None
    """Where the next part of a long job begins: the index after which to look."""


def label(value: Any) -> str:
    """A parameter's value for a heading."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def load_grids(
    engine: Engine,
    view: JobView,
    x: str | None,
    y: str | None,
    number: int = 0,
    after: int = -1,
    columns_from: int = 0,
    rows_from: int = 0,
) -> Grids:
    """The sheets of a job; raises InvalidSubmissionError for an axis that is no parameter.

    Without axes: those of the sweep, else what varies most plainly. ``y`` may be ``none``.
    """
    cells, more = _load(engine, view.job.id, after)
    varying = _varying(cells)
    swept = {_axis(name) for name in view.job.spec.get("sweep", {})}
    names = sorted(varying, key=lambda name: (name not in swept, -_first_change(cells, name) if name in swept else 0))
    first, second = _chosen(x, y, names)
    sheets = _sheets(cells, first, second, varying)
    number = min(number, len(sheets) - 1)
    labels = [_sheet_label(sheet) for sheet in sheets]
    shown = sheets[number][1] if sheets else []
    columns = list(dict.fromkeys(cell.text(first) for cell in cells))
    rows = list(dict.fromkeys(cell.text(second) for cell in cells)) if second else [""]
    in_columns = {text: place for place, text in enumerate(columns[columns_from : columns_from + MAX_VALUES])}
    in_rows = {text: place for place, text in enumerate(rows[rows_from : rows_from + MAX_VALUES])}
    placed = {
        (in_rows[row], in_columns[column]): cell
        for cell in shown
        if (column := cell.text(first)) in in_columns and (row := cell.text(second) if second else "") in in_rows
    }
    grid = Grid(
        first,
        second,
        list(in_columns),
        list(in_rows),
        placed,
        sheets[number][0] if sheets else [],
        len(columns),
        len(rows),
    )
    return Grids(first, second, names, labels, grid, max(number, 0), cells[-1].index if more else None)


def _load(engine: Engine, job_id: int, after: int) -> tuple[list[Cell], bool]:
    """A job's images in order, as many as a grid is made from, and whether there are more."""
    query = (
        select(
            Image.index.label("place"),
            Image.state,
            Image.sha256,
            Image.image_key,
            Image.thumbnail_key,
            Image.error,
            Image.prompt,
            Image.negative_prompt,
            Image.seed,
            Image.parameters,
            Image.batch_id,
        )
        .where(Image.job_id == job_id, Image.index > after)
        .order_by(Image.index)
        .limit(MAX_IMAGES + 1)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        batch_ids = {row.batch_id for row in rows}
        found = connection.execute(select(Batch.id, Batch.parameters).where(Batch.id.in_(batch_ids))).all()
    batches: dict[int, dict[str, Any]] = dict(found)
    nothing = {name: _default(name) for name in ImageParameters.model_fields}
    cells = [
        Cell(
            job_id,
            row.place,
            row.state,
            row.sha256,
            row.image_key,
            row.thumbnail_key,
            row.error,
            {
                **nothing,
                **batches[row.batch_id],
                **(row.parameters or {}),
                "prompt": row.prompt,
                "negative_prompt": row.negative_prompt,
                "seed": row.seed,
            },
        )
        for row in rows[:MAX_IMAGES]
    ]
    return cells, len(rows) > MAX_IMAGES


def _default(name: str) -> Any:
    field = ImageParameters.model_fields[name]
    return None if field.is_required() or isinstance(field.default, tuple) else _as_json(field.default)


def _as_json(value: Any) -> Any:
    return value.given() if hasattr(value, "given") else value


def _varying(cells: list[Cell]) -> list[str]:
    """Parameters with more than one value: prompts and seeds last, because the others were chosen to be compared."""
    if not cells:
        return []
    first = cells[0].values
    names = [name for name in ImageParameters.model_fields if any(cell.values[name] != first[name] for cell in cells)]
    if "width" in names and "height" in names:
        names = [SIZE, *(name for name in names if name not in ("width", "height"))]
    return sorted(names, key=("prompt", "seed").__contains__)


def _first_change(cells: list[Cell], name: str) -> int:
    """How many images come before its first other value: the first axis of a sweep runs slowest, and Postgres keeps no
    order of names.
    """
    first = cells[0].text(name)
    return next(place for place, cell in enumerate(cells) if cell.text(name) != first)


def _axis(name: str) -> str:
    return ALIASES.get(name, name)


def _chosen(x: str | None, y: str | None, names: list[str]) -> tuple[str, str | None]:
    known = (*ImageParameters.model_fields, SIZE)
    for field, name in (("x", x), ("y", y)):
        if name and name != "none" and _axis(name) not in known:
            meant = suggestion(name, (*known, *ALIASES))
            remedy = f"did you mean {meant}?" if meant else f"those that vary in this job are {', '.join(names)}"
            raise InvalidSubmissionError([Problem(field, f"{name[:40]!r} is no parameter; {remedy}")])
    y_axis = _axis(y) if y else None
    first = _axis(x) if x and x != "none" else next((name for name in names if name != y_axis), "seed")
    second = next((name for name in names if name != first), "none") if y_axis is None else y_axis
    if second == first:
        raise InvalidSubmissionError([Problem("y", f"is {first}, as x is; choose another, or none")])
    return first, None if second == "none" else second


Sheet = tuple[list[tuple[str, str]], list[Cell]]


def _sheets(cells: list[Cell], x: str, y: str | None, varying: list[str]) -> list[Sheet]:
    """One list of images for each combination of what varies within a cell.

    Seeds that count on from prompt to prompt make no sheet each: the first seed of every cell belongs on the first, and
    so on.
    """
    by_place: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        by_place[cell.text(x), cell.text(y) if y else ""].append(cell)
    rest = [
        name
        for name in varying
        if name not in (x, y, "seed")
        and any(cell.text(name) != group[0].text(name) for group in by_place.values() for cell in group[1:])
    ]
    sheets: dict[tuple[tuple[str, ...], int], list[Cell]] = {}
    for group in by_place.values():
        ranks: dict[tuple[str, ...], int] = defaultdict(int)
        for cell in group:
            key = tuple(cell.text(name) for name in rest)
            sheets.setdefault((key, ranks[key]), []).append(cell)
            ranks[key] += 1
    several = any(rank for _, rank in sheets)
    result: list[Sheet] = []
    for (key, rank), found in sorted(sheets.items(), key=lambda item: item[1][0].index):
        remaining = list(zip(rest, key, strict=True))
        if several and "seed" not in (x, y):
            seeds = {cell.values["seed"] for cell in found}
            remaining.append(("seed", str(seeds.pop()) if len(seeds) == 1 else f"no. {rank + 1} of each"))
        result.append((remaining, found))
    return result


def _sheet_label(sheet: Sheet) -> str:
    return ", ".join(f"{name} {text[:60]}" for name, text in sheet[0])
