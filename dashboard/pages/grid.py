"""Grids of a job: its pictures by the values of two parameters, as a page and as one picture to take along."""

from itertools import islice

from flask import Blueprint, Response, render_template, request
from werkzeug.exceptions import NotFound

from dashboard.arguments import integer
from dashboard.contact import LEAST_EDGE, MAX_PICTURES, MEDIA_TYPES, MOST_EDGE, sheet_response
from dashboard.context import context
from dashboard.picking import query_filter
from dashboard.queries.grids import MAX_VALUES, Grids, load_grids
from dashboard.queries.jobs import JobView, get_job
from dashboard.queries.pictures import every_image
from farm.errors import InvalidSubmissionError, Problem
from producer.grids import Layout, in_order

blueprint = Blueprint("grid", __name__)


@blueprint.get("/jobs/<int:job_id>/grid")
def show(job_id: int) -> str:
    """The grid with labelled axes: ``x`` and ``y``, ``sheet`` for one combination of what else varies."""
    view, grids = _load(job_id)
    place = {name: integer(name, 0) or 0 for name in ("columns_from", "rows_from")}
    return render_template("grid.html", view=view, grids=grids, grid=grids.grid, most=MAX_VALUES, **place)


@blueprint.get("/jobs/<int:job_id>/grid.<ending>")
def picture(job_id: int, ending: str) -> Response:
    """The same grid as one picture; ``cell`` is the edge of a cell in pixels."""
    _require_known(ending)
    _, grids = _load(job_id)
    grid = grids.grid
    places = {cell.index: place for place, cell in grid.cells.items() if cell.thumbnail_key is not None}
    _require_some(len(places))
    layout = Layout(
        places,
        row_labels=tuple(f"{grid.y} {text}" for text in grid.rows) if grid.y else (),
        column_labels=tuple(f"{grid.x} {text}" for text in grid.columns),
    )
    cells = (grid.cells[place] for place in sorted(grid.cells))
    return sheet_response(context().store, layout, cells, _edge(), ending, f"job-{job_id}-grid.{ending}")


@blueprint.get("/jobs/<int:job_id>/sheet.<ending>")
def contact_sheet(job_id: int, ending: str) -> Response:
    """A contact sheet in reading order, of all finished pictures or of those that the filter finds."""
    _require_known(ending)
    farm = context()
    get_job(farm.engine, farm.board, job_id)
    found = (view for view in every_image(farm.engine, job_id, query_filter()) if view.image.thumbnail_key is not None)
    views = list(islice(found, MAX_PICTURES + 1))
    _require_some(len(views))
    layout = in_order([{**view.parameters, "index": view.image.index} for view in views], integer("columns", low=1))
    images = (view.image for view in views)
    return sheet_response(farm.store, layout, images, _edge(), ending, f"job-{job_id}-sheet.{ending}")


def _load(job_id: int) -> tuple[JobView, Grids]:
    farm = context()
    view = get_job(farm.engine, farm.board, job_id)
    numbers = {name: integer(name, 0, high=2**31 - 2) or 0 for name in ("sheet", "columns_from", "rows_from")}
    after = integer("after", high=2**31 - 2)
    grids = load_grids(
        farm.engine,
        view,
        request.args.get("x"),
        request.args.get("y"),
        numbers["sheet"],
        -1 if after is None else after,
        numbers["columns_from"],
        numbers["rows_from"],
    )
    return view, grids


def _edge() -> int | None:
    return integer("cell", None, LEAST_EDGE, MOST_EDGE)


def _require_known(ending: str) -> None:
    if ending not in MEDIA_TYPES:
        raise NotFound


def _require_some(count: int) -> None:
    if not count:
        raise InvalidSubmissionError([Problem("images", "are none: no picture of these is finished yet")])
