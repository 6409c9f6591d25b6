"""The pages of pictures."""

from flask import Blueprint, render_template

from dashboard.arguments import integer
from dashboard.context import context
from dashboard.queries.images import get_image, list_images
from dashboard.queries.jobs import get_job

blueprint = Blueprint("pages", __name__)

IMAGES_PER_PAGE = 60


@blueprint.get("/jobs/<int:job_id>/fragments/images")
def job_images(job_id: int) -> str:
    """A page of the gallery: the images after ``after``."""
    images = list_images(context().engine, job_id, IMAGES_PER_PAGE, integer("after"))
    return render_template("_images.html", job_id=job_id, images=images)


@blueprint.get("/jobs/<int:job_id>/images/<int:index>")
def image(job_id: int, index: int) -> str:
    """One picture in full size, with all its parameters."""
    farm = context()
    picture = get_image(farm.engine, job_id, index)
    return render_template("image.html", view=get_job(farm.engine, farm.board, job_id), picture=picture)
