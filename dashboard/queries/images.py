"""What pages and API show of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Select, select, true
from sqlalchemy.orm import Session

from dashboard.queries.jobs import JobView
from dashboard.queries.paging import MAX_ID, MAX_INDEX, Page
from farm.errors import NotFoundError
from farm.formats import Format, format_of
from farm.keys import download_name
from farm.models import Batch, Image, Job
from farm.picture_filter import PictureFilter
from farm.spec import ImageParameters
from farm.states import ImageState

#: A row shows the time at which its transaction began, and becomes visible when it commits: who asks for what is
#: new looks back this far, and may see a row twice.
COMMIT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image with its full parameters."""

    image: Image
    parameters: dict[str, Any]

    @property
    def place(self) -> str:
        """Job and index, as addresses name it: ``7:12``."""
        return f"{self.image.job_id}:{self.image.index}"

    @property
    def download_name(self) -> str:
        """File name for saving it."""
        return download_name(self.image.index, self.image.seed, self.format.ending)

    @property
    def shown_state(self) -> str:
        """Its state, or that its picture was removed."""
        return "removed" if self.image.removed_at is not None else self.image.state.value

    @property
    def format(self) -> Format:
        """The form in which it is delivered."""
        return format_of(self.parameters["output_format"])

    @property
    def version(self) -> str | None:
        """Short name of the picture's content. A farm that was set up anew counts its jobs from 1 again: pages put this
        into addresses, so that no browser shows the picture that it once kept for another job."""
        return self.image.sha256 and self.image.sha256[:16]


def list_images(
    engine: Engine, job_id: int, limit: int, after: int | None = None, chosen: PictureFilter | None = None
) -> Page[ImageView]:
    """A job's images in the order of their index; ``after`` goes on where the last page ended."""
    query = _image_query(job_id).order_by(Image.index).limit(limit + 1)
    if after is not None:
        query = query.where(Image.index > min(after, MAX_INDEX))
    if chosen is not None:
        query = query.where(*chosen.conditions())
    return Page.of(image_views(engine, query), limit)


def get_image(engine: Engine, job_id: int, index: int) -> ImageView:
    """One image; raises NotFoundError."""
    if job_id <= MAX_ID and index <= MAX_INDEX:
        views = image_views(engine, _image_query(job_id).where(Image.index == index))
        if views:
            return views[0]
    raise NotFoundError(f"There is no image {index} in job {job_id}.")


def covers(engine: Engine, views: Sequence[JobView]) -> dict[int, ImageView]:
    """Per job, its first picture."""
    job_ids = [view.job.id for view in views if view.job.images_completed > view.job.images_removed]
    if not job_ids:
        return {}
    first = (
        select(Image.index)
        .where(Image.job_id == Job.id, Image.state == ImageState.COMPLETED, Image.image_key.is_not(None))
        .order_by(Image.index)
        .limit(1)
        .lateral("first")
    )
    chosen = select(Job.id, first.c.index).join(first, true()).where(Job.id.in_(job_ids)).subquery("chosen")
    query = (
        select(Image, Batch.parameters)
        .join(chosen, (chosen.c.id == Image.job_id) & (chosen.c.index == Image.index))
        .join(Batch, Batch.id == Image.batch_id)
    )
    return {view.image.job_id: view for view in image_views(engine, query)}


def ended_since(engine: Engine, job_id: int, since: datetime, below: int | None, limit: int) -> list[ImageView]:
    """A job's images that ended since then, for pages that are open and show those with an index ``below``."""
    query = _image_query(job_id).where(Image.finished_at >= since - timedelta(seconds=COMMIT_SECONDS))
    if below is not None:
        query = query.where(Image.index < min(below, MAX_INDEX))
    return image_views(engine, query.order_by(Image.index).limit(limit))


def _image_query(job_id: int) -> Select[Image, dict[str, Any]]:
    return select(Image, Batch.parameters).join(Batch, Batch.id == Image.batch_id).where(Image.job_id == job_id)


def image_views(engine: Engine, query: Select[Image, dict[str, Any]]) -> list[ImageView]:
    """What a query for images and their batches' parameters finds."""
    with Session(engine, expire_on_commit=False) as session:
        rows = session.execute(query).all()
    return [
        ImageView(
            image,
            {
                **dict.fromkeys(ImageParameters.model_fields),
                **parameters,
                **(image.parameters or {}),
                "prompt": image.prompt,
                "negative_prompt": image.negative_prompt,
                "seed": image.seed,
            },
        )
        for image, parameters in rows
    ]
