"""A job's pictures as one ZIP."""

from flask import Blueprint, Response

from dashboard.api.bodies import read_json_object
from dashboard.api.operations import Media, describe, read_query
from dashboard.api.schemas.jobs import ChosenBody, ChosenQuery
from dashboard.archive import archive_response
from dashboard.auth import requires
from dashboard.context import context
from dashboard.picking import json_filter, query_filter
from dashboard.queries.jobs import get_job
from dashboard.queries.pictures import every_image
from farm.picture_filter import PictureFilter
from farm.roles import Role

blueprint = Blueprint("api_archive", __name__)


@blueprint.get("/jobs/<int:job_id>/archive")
@describe("images", {200: Media("application/zip")}, query=ChosenQuery)
def download(job_id: int) -> Response:
    """A ZIP of the job's pictures, or of those that the filter finds, with a manifest."""
    read_query(ChosenQuery)
    return job_archive(job_id, query_filter())


@blueprint.post("/jobs/<int:job_id>/archive")
@describe("images", {200: Media("application/zip")}, body=ChosenBody)
@requires(Role.VIEWER)
def download_chosen(job_id: int) -> Response:
    """The same, for choices that are too long for an address: ``images`` and ``filter`` as JSON."""
    return job_archive(job_id, json_filter(read_json_object(ChosenBody, closed=True)))


def job_archive(job_id: int, chosen: PictureFilter) -> Response:
    """The answer for pictures of one job; raises NotFoundError without such a job."""
    farm = context()
    get_job(farm.engine, farm.board, job_id)
    name = f"job-{job_id}.zip" if chosen.everything else f"job-{job_id}-chosen.zip"
    return archive_response(farm.store, every_image(farm.engine, job_id, chosen), name)
