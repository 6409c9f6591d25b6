"""Where the picture of an image lies: for those who start from it."""

from typing import NamedTuple

from sqlalchemy import Engine, select

from farm.errors import ObjectMissingError
from farm.models import Image


class StoredPicture(NamedTuple):
    """An object and the hash of its bytes."""

    key: str
    sha256: str


def stored_picture(engine: Engine, job_id: int, index: int) -> StoredPicture:
    """The picture of an image. Raises ObjectMissingError when there is none, with the reason."""
    query = select(Image.image_key, Image.sha256, Image.state, Image.removed_at).where(
        Image.job_id == job_id, Image.index == index
    )
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise ObjectMissingError(f"There is no picture {index} of job {job_id} to start from: the job was deleted.")
    if row.removed_at is not None:
        raise ObjectMissingError(
            f"There is no picture {index} of job {job_id} to start from: it was removed on {row.removed_at:%Y-%m-%d}."
        )
    if row.image_key is None or row.sha256 is None:
        raise ObjectMissingError(
            f"There is no picture {index} of job {job_id} to start from: that image is {row.state.value}."
        )
    return StoredPicture(row.image_key, row.sha256)
