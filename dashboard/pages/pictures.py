"""The pictures of all jobs: searched, marked, downloaded."""

from collections import defaultdict
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dashboard.archive import archive_response
from dashboard.auth import identity, requires
from dashboard.context import context
from dashboard.pages.gallery import IMAGES_PER_PAGE, shape_of
from dashboard.picking import form_change, form_places, query_filter, text_filter
from dashboard.queries.pictures import Place, get_pictures, list_pictures, read_place
from farm.marks import mark_images
from farm.picture_filter import Indices, PictureFilter
from farm.roles import Role

blueprint = Blueprint("pictures", __name__)


@blueprint.get("/pictures")
def index() -> str:
    """The newest pictures first; ``before`` and ``after`` leaf through them."""
    chosen = query_filter(with_indices=False)
    before, after = (_place(name) for name in ("before", "after"))
    images = list_pictures(context().engine, IMAGES_PER_PAGE, chosen, before, after)
    return render_template(
        "pictures.html",
        images=images,
        shown=chosen.as_json(),
        shape=shape_of(images),
        before=before,
        after=after,
        newer=images.entries[0].place if images.entries and (images.more if after else before is not None) else None,
        older=images.entries[-1].place if images.entries and (after is not None or images.more) else None,
    )


@blueprint.post("/pictures/marks")
def mark() -> AnyResponse:
    """Mark what was chosen, job by job."""
    change = form_change(request.form)
    for job_id, indices in _by_job(form_places(request.form)).items():
        mark_images(context().engine, job_id, PictureFilter(indices=indices), change, identity().name)
    shown = text_filter(request.form, with_indices=False).as_json()
    where: dict[str, Any] = {name: text for name in ("before", "after") if (text := request.form.get(name))}
    return redirect(url_for("pictures.index", **shown, **where), HTTPStatus.SEE_OTHER)


@blueprint.post("/pictures/archive")
@requires(Role.VIEWER)
def archive() -> Response:
    """A ZIP of what was chosen, a folder for each job."""
    farm = context()
    views = get_pictures(farm.engine, sorted(form_places(request.form)))
    return archive_response(farm.store, iter(views), "pictures.zip", folders=True)


def _place(name: str) -> Place | None:
    text = request.args.get(name)
    return read_place(name, text) if text else None


def _by_job(places: list[Place]) -> dict[int, Indices]:
    indices: dict[int, list[int]] = defaultdict(list)
    for place in places:
        indices[place.job_id].append(place.index)
    return {job_id: Indices.of(indices[job_id]) for job_id in sorted(indices)}
