"""Images: list, show, and the pictures themselves."""

from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dashboard.api.bodies import read_json_object
from dashboard.api.operations import Media, describe, read_query
from dashboard.api.schemas.jobs import (
    FileQuery,
    ImageDocument,
    ImagePage,
    ImagesPage,
    ImagesQuery,
    JobImagesQuery,
    MarkBody,
    Marked,
    MarksBody,
    PreviewQuery,
    ThumbnailQuery,
)
from dashboard.auth import identity
from dashboard.context import context
from dashboard.picking import json_change, json_filter, query_filter
from dashboard.queries.images import ImageView, get_image, list_images
from dashboard.queries.jobs import get_job
from dashboard.queries.pictures import list_pictures, read_place
from dashboard.removed import picture_key
from dashboard.signing import SIGNED_URL_SECONDS
from farm.errors import NotFoundError
from farm.formats import FORMATS
from farm.marks import mark_image, mark_images

blueprint = Blueprint("api_images", __name__)

TOLD = {
    "ETag": "The SHA-256 of the picture.",
    "Cache-Control": "A finished picture never changes.",
    "Content-Disposition": "The name to save it under, if that was asked for.",
    "Location": "With 302: a signed address of the store, good for an hour.",
}
STORE = (HTTPStatus.GONE, HTTPStatus.BAD_GATEWAY)
PICTURES = tuple(Media(kind) for kind in dict.fromkeys(one.media_type for one in FORMATS.values()))


@blueprint.get("/jobs/<int:job_id>/images")
@describe("images", {200: ImagePage}, query=JobImagesQuery)
def index(job_id: int) -> Response:
    """A job's images by index; ``next`` is the ``after`` of the next page."""
    farm = context()
    get_job(farm.engine, farm.board, job_id)
    asked = read_query(JobImagesQuery)
    page = list_images(farm.engine, job_id, asked.limit, asked.after, query_filter())
    images = [image_json(view) for view in page.entries]
    return jsonify({"images": images, "next": page.entries[-1].image.index if page.more else None})


@blueprint.get("/images")
@describe("images", {200: ImagesPage}, query=ImagesQuery)
def everywhere() -> Response:
    """Images of all jobs, the newest job's last image first; ``next`` is the ``before`` of the next page."""
    asked = read_query(ImagesQuery)
    before = read_place("before", asked.before) if asked.before is not None else None
    chosen = query_filter(with_indices=False)
    page = list_pictures(context().engine, asked.limit, chosen, before=before)
    images = [image_json(view) for view in page.entries]
    return jsonify({"images": images, "next": str(page.entries[-1].place) if page.more else None})


@blueprint.get("/jobs/<int:job_id>/images/<int:index>")
@describe("images", {200: ImageDocument})
def show(job_id: int, index: int) -> Response:
    """One image with its full parameters."""
    return jsonify(image_json(get_image(context().engine, job_id, index)))


@blueprint.patch("/jobs/<int:job_id>/images/<int:index>")
@describe("images", {200: ImageDocument}, body=MarkBody)
def mark(job_id: int, index: int) -> Response:
    """Change ``rating`` or ``tags`` of one image."""
    get_image(context().engine, job_id, index)
    mark_image(context().engine, job_id, index, json_change(read_json_object(MarkBody), ("rating", "tags")))
    return show(job_id, index)


@blueprint.post("/jobs/<int:job_id>/marks")
@describe("images", {200: Marked}, body=MarksBody)
def mark_many(job_id: int) -> Response:
    """Change the marks of many images: of ``images``, or of what ``filter`` finds; ``marked`` says how many."""
    body = read_json_object(MarksBody)
    chosen = json_filter(body, required=True)
    change = json_change(body, ("rating", "tags", "add_tags", "remove_tags"))
    return jsonify({"marked": mark_images(context().engine, job_id, chosen, change, identity().name)})


@blueprint.get("/jobs/<int:job_id>/images/<int:index>/file")
@describe("images", {200: PICTURES, 302: None, 304: None}, query=FileQuery, problems=STORE, told=TOLD)
def file(job_id: int, index: int) -> AnyResponse:
    """The picture; ``?download=1`` has the browser save it under its download name."""
    view = get_image(context().engine, job_id, index)
    name = view.download_name if read_query(FileQuery).download else None
    return _object(view, picture_key(view.image), view.format.media_type, name)


@blueprint.get("/jobs/<int:job_id>/images/<int:index>/latents")
@describe("images", {200: Media("application/octet-stream"), 302: None, 304: None}, problems=STORE, told=TOLD)
def latents(job_id: int, index: int) -> AnyResponse:
    """The latents of an image that was submitted with output_format latents, as safetensors."""
    view = get_image(context().engine, job_id, index)
    if view.parameters["output_format"] != "latents":
        raise NotFoundError(
            f"Image {index} of job {job_id} is a {view.parameters['output_format']}; submit it with output_format "
            f"latents to get its latents."
        )
    return _object(view, picture_key(view.image), view.format.media_type, view.download_name)


@blueprint.get("/jobs/<int:job_id>/images/<int:index>/thumbnail")
@describe("images", {200: Media("image/webp"), 302: None, 304: None}, query=ThumbnailQuery, problems=STORE, told=TOLD)
def thumbnail(job_id: int, index: int) -> AnyResponse:
    """A small WebP of the picture."""
    view = get_image(context().engine, job_id, index)
    return _object(view, picture_key(view.image, thumbnail=True), "image/webp", None)


@blueprint.get("/jobs/<int:job_id>/images/<int:index>/preview")
@describe("images", {200: Media("image/jpeg")}, query=PreviewQuery)
def preview(job_id: int, index: int) -> Response:
    """A rough JPEG of a picture that is being denoised. Asking counts as looking: the next one may take a moment."""
    board = context().board
    board.watch(job_id)
    data = board.read_preview(job_id, index)
    if data is None:
        raise NotFoundError(f"Image {index} of job {job_id} has no preview now.")
    response = Response(data, mimetype="image/jpeg")
    response.headers["Cache-Control"] = "no-store"
    return response


def image_json(view: ImageView) -> dict[str, Any]:
    """An image as the API shows it."""
    image = view.image
    place: dict[str, Any] = {"job_id": image.job_id, "index": image.index}
    there = image.image_key is not None
    return {
        **place,
        "state": image.state.value,
        **view.parameters,
        "sha256": image.sha256,
        "error": image.error,
        "rating": image.rating,
        "tags": image.tags,
        "finished_at": image.finished_at and image.finished_at.isoformat(),
        "removed_at": image.removed_at and image.removed_at.isoformat(),
        "download_name": view.download_name,
        "url": url_for("api_images.show", **place),
        "file_url": url_for("api_images.file", **place) if there else None,
        "thumbnail_url": url_for("api_images.thumbnail", **place) if there else None,
        "latents_url": url_for("api_images.latents", **place)
        if there and view.parameters["output_format"] == "latents"
        else None,
    }


def _object(view: ImageView, key: str, media_type: str, download_name: str | None) -> AnyResponse:
    """An object of the store: by signed redirect where browsers reach the store, else through here."""
    store = context().store
    if (url := store.public_url(key, SIGNED_URL_SECONDS, download_name)) is not None:
        return redirect(url, HTTPStatus.FOUND)
    if request.if_none_match.contains(view.image.sha256 or ""):
        response = Response(status=HTTPStatus.NOT_MODIFIED)
    else:
        response = Response(store.get(key), mimetype=media_type)
    # A finished picture never changes.
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.set_etag(view.image.sha256 or "")
    if download_name is not None:
        response.headers["Content-Disposition"] = f'attachment; filename="{download_name}"'
    return response
