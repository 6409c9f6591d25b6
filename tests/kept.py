"""Jobs whose pictures lie in a store, and time that passes for them."""

from datetime import timedelta
from typing import Any

from rows import keys_for, start
from sqlalchemy import Engine, func, select, update

from farm.catalog import Catalog
from farm.errors import ObjectMissingError
from farm.models import Image, Job
from farm.storage import ObjectStore, sha256
from farm.transitions import FinishedPicture, finish_batch
from producer.intake import Intake, Row
from producer.submit import submit_job

PICTURE = b"a picture of 25 bytes ..."


def submit(engine: Engine, images: int, owner: str = "ana", **fields: Any) -> int:
    rows = [Row({"prompt": f"prompt {number}"}) for number in range(images)]
    fields = {"batch_size": images, "seed": 7, "refiner_split": None, **fields}
    return submit_job(engine, Catalog.load(), "tiny", fields, Intake(rows), owner).job_id


def render_batch(engine: Engine, store: ObjectStore, job_id: int) -> None:
    held, pictures = start(engine, job_id), []
    for one in held.images:
        names = keys_for(held, one.index)
        for name in names:
            store.put(name, PICTURE, "image/png")
        pictures.append(FinishedPicture(one.index, *names, sha256(PICTURE), len(PICTURE)))
    assert finish_batch(engine, held, "w", pictures, 1)


def render(engine: Engine, store: ObjectStore, images: int = 1, owner: str = "ana", **fields: Any) -> int:
    """A job that has ended."""
    job_id = submit(engine, images, owner, **fields)
    render_batch(engine, store, job_id)
    return job_id


def let_pass(engine: Engine, job_id: int, **time: float) -> None:
    """Make a job, and its pictures, older."""
    ago = timedelta(**time)
    with engine.begin() as connection:
        for table, column in ((Job, Job.id), (Image, Image.job_id)):
            connection.execute(update(table).where(column == job_id).values(finished_at=table.finished_at - ago))


def star(engine: Engine, job_id: int, *indices: int) -> None:
    with engine.begin() as connection:
        connection.execute(update(Image).where(Image.job_id == job_id, Image.index.in_(indices)).values(rating=1))


def stored(engine: Engine, job_id: int) -> list[int]:
    """Indices of a job's images that have their picture."""
    query = select(Image.index).where(Image.job_id == job_id, Image.image_key.is_not(None)).order_by(Image.index)
    with engine.connect() as connection:
        return [*connection.scalars(query)]


def is_there(store: ObjectStore, key: str) -> bool:
    try:
        store.get(key)
    except ObjectMissingError:
        return False
    return True


def count(engine: Engine, table: type) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0
