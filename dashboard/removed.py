"""What is said instead of a picture that is not there."""

from werkzeug.exceptions import Gone

from farm.errors import NotFoundError
from farm.models import Image


def picture_key(image: Image, *, thumbnail: bool = False) -> str:
    """Where the picture lies. Raises Gone for one that was removed, NotFoundError for one that is not finished."""
    key = image.thumbnail_key if thumbnail else image.image_key
    if key is not None:
        return key
    if image.removed_at is not None:
        raise Gone(f"The picture of image {image.index} of job {image.job_id} {when_removed(image)}.")
    raise NotFoundError(f"Image {image.index} of job {image.job_id} has no picture (yet).")


def when_removed(image: Image) -> str:
    """When, by what, and what to do about it: what it was made from is still known."""
    day = f"{image.removed_at:%Y-%m-%d}"
    return f"was removed by retention on {day}; `farm retry {image.job_id} --removed` renders it again"
