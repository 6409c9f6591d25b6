"""Two to four pictures side by side, and in which parameters they differ."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.context import context
from dashboard.pages.filters import told
from dashboard.picking import form_places
from dashboard.queries.images import ImageView
from dashboard.queries.pictures import get_pictures
from farm.errors import InvalidSubmissionError, Problem

blueprint = Blueprint("compare", __name__)

FEWEST, MOST = 2, 4


@blueprint.get("/compare")
def show() -> str | Response:
    """The pictures that ``pictures=JOB:INDEX,JOB:INDEX`` names, of any jobs."""
    places = form_places(request.args)
    if request.args.getlist("picture"):
        # As a form sends them; the address is to be short enough to be passed on.
        pictures = ",".join(map(str, places))
        return redirect(url_for("compare.show", pictures=pictures), HTTPStatus.SEE_OTHER)
    if not FEWEST <= len(places) <= MOST:
        raise InvalidSubmissionError(
            [Problem("pictures", f"are {len(places)}; select {FEWEST} to {MOST} of them to compare")]
        )
    views = get_pictures(context().engine, places)
    names = [name for name, _ in told(_union(views))]
    rows = [(name, [view.parameters.get(name) for view in views]) for name in ("prompt", *names)]
    differing = [row for row in rows if any(value != row[1][0] for value in row[1])]
    same = [(name, values[0]) for name, values in rows if all(value == values[0] for value in values)]
    return render_template("compare.html", pictures=views, differing=differing, same=same)


def _union(views: list[ImageView]) -> dict[str, Any]:
    """Of each parameter a value that is worth telling, if any picture has one."""
    union: dict[str, Any] = {}
    for view in views:
        union.update(told(view.parameters))
    union.pop("prompt", None)
    return union
