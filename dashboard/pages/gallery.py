"""A job's gallery: pages of tiles, marks and downloads of what was chosen; and the viewer of one picture."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dashboard.api.archive import job_archive
from dashboard.arguments import integer
from dashboard.auth import identity, requires
from dashboard.context import context
from dashboard.picking import form_change, form_filter, query_filter, text_filter
from dashboard.queries.images import ImageView, list_images
from dashboard.queries.jobs import JobView
from dashboard.queries.paging import Page
from dashboard.queries.pictures import find_in_job, neighbours, tags_of_job
from farm.marks import mark_images
from farm.roles import Role
from producer.recipes import recipes_of

blueprint = Blueprint("gallery", __name__)

IMAGES_PER_PAGE = 60
#: Pictures that are a quarter wider than high, or the other way round, get tiles of that shape.
OBLONG = 1.25


def gallery_of(view: JobView) -> dict[str, Any]:
    """What the gallery in a job's page shows.

    ``after`` begins it further on, for those without JavaScript; ``at`` (an index) and ``number`` (counted from 1) at
    the page that holds this picture.
    """
    chosen = query_filter()
    after, at = integer("after"), integer("at")
    if (number := request.args.get("number")) is not None:
        at = max((integer("number", low=1) or 1) - 1, 0) if number else None
    if at is not None:
        # Pages of the whole begin at multiples; those of a filter at the picture itself.
        first = min(at, view.job.image_count - 1)
        first = first - first % IMAGES_PER_PAGE if chosen.everything else first
        after = first - 1 if first > 0 else None
    return {
        "after": after,
        "at": at,
        "tags": tags_of_job(context().engine, view.job.id),
        **_page(view.job.id, after),
    }


@blueprint.get("/jobs/<int:job_id>/fragments/images")
def tiles(job_id: int) -> str:
    """A page of the gallery: the images after ``after``."""
    return render_template("_images.html", job_id=job_id, **_page(job_id, integer("after")))


@blueprint.get("/jobs/<int:job_id>/fragments/found")
def found(job_id: int) -> Response:
    """How many pictures the filter finds, and the index that each page of the gallery begins with."""
    result = find_in_job(context().engine, job_id, query_filter(), IMAGES_PER_PAGE)
    return jsonify({"total": result.total, "starts": result.starts})


@blueprint.post("/jobs/<int:job_id>/marks")
def mark(job_id: int) -> AnyResponse:
    """Mark what was chosen, and go back to where it was chosen."""
    chosen = form_filter(request.form, job_id)
    mark_images(context().engine, job_id, chosen, form_change(request.form), identity().name)
    shown = text_filter(request.form, with_indices=False).as_json()
    if request.form.get("view"):
        index = int(str(chosen.indices))
        return redirect(url_for("pages.image", job_id=job_id, index=index, **shown), HTTPStatus.SEE_OTHER)
    after = request.form.get("after") or None
    return redirect(url_for("pages.job", job_id=job_id, after=after, **shown), HTTPStatus.SEE_OTHER)


@blueprint.route("/jobs/<int:job_id>/archive", methods=["GET", "POST"])
@requires(Role.VIEWER)
def archive(job_id: int) -> Response:
    """A ZIP of what the filter finds, or of what was chosen."""
    chosen = form_filter(request.form, job_id) if request.method == "POST" else query_filter()
    return job_archive(job_id, chosen)


def viewer_of(picture: ImageView) -> dict[str, Any]:
    """What the viewer shows: the picture, its neighbours among those that the filter finds, how to render it again."""
    chosen = query_filter()
    near = neighbours(context().engine, picture.image.job_id, picture.image.index, chosen)
    return {
        "picture": picture,
        "near": near,
        "shown": chosen.as_json(),
        "recipes": recipes_of(picture.parameters, request.url_root.rstrip("/")),
    }


def shape_of(images: Page[ImageView]) -> str:
    """The shape of the tiles, from the first: all of one gallery have the same."""
    if not images.entries:
        return "square"
    parameters = images.entries[0].parameters
    ratio = parameters["width"] / parameters["height"]
    return "wide" if ratio >= OBLONG else "tall" if ratio <= 1 / OBLONG else "square"


def _page(job_id: int, after: int | None) -> dict[str, Any]:
    chosen = query_filter()
    images = list_images(context().engine, job_id, IMAGES_PER_PAGE, after, chosen)
    return {"images": images, "shown": chosen.as_json(), "shape": shape_of(images), "page_size": IMAGES_PER_PAGE}
