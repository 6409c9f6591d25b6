"""Jobs, batches and images in the database, moved as producer and workers move them."""

from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from farm.catalog import Catalog
from farm.claims import Claim, claim
from farm.keys import image_key, thumbnail_key
from farm.models import Batch, Image, Job, Worker
from farm.states import ImageState, Stage
from farm.transitions import FinishedPicture, queue_ready_batches, register_worker
from producer.intake import Intake, Row
from producer.submit import submit_job

LEASE = 30.0


def submit(engine: Engine, images: int, batch_size: int = 4, owner: str = "", **fields: Any) -> int:
    rows = [Row({"prompt": f"prompt {n}"}) for n in range(images)]
    fields = {"batch_size": batch_size, "seed": 7, **fields}
    return submit_job(engine, Catalog.load(), "tiny", fields, Intake(rows), owner).job_id


def hire(engine: Engine, name: str = "w", **fields: Any) -> None:
    """A worker that serves both stages, unless something else is said."""
    worker = {"pipeline": "tiny", "stages": ["base", "refiner"], "tags": [], **fields}
    register_worker(engine, Worker(id=name, hostname="h", process_id=1, device="cpu", device_name="a device", **worker))


def start(engine: Engine, job_id: int, stage: Stage = Stage.BASE, worker_id: str = "w") -> Claim:
    (sent,) = queue_ready_batches(engine, {job_id: 1}, stage)
    held = claim(engine, sent.batch_id, sent.attempt, stage, worker_id, LEASE)
    assert held is not None
    return held


def pictures_of(held: Claim) -> list[FinishedPicture]:
    return [FinishedPicture(image.index, f"i/{image.index}", f"t/{image.index}", "ab") for image in held.images]


def keys_for(held: Claim, index: int, ending: str = "png") -> tuple[str, str]:
    """Where a claim leaves an image's picture and thumbnail."""
    place = held.job_id, index, held.batch_id, held.attempt
    return image_key(*place, ending), thumbnail_key(*place)


def keys_of(engine: Engine, job_id: int, index: int) -> tuple[str, str]:
    """Where an image's picture and thumbnail lie."""
    with Session(engine) as session:
        image = session.get_one(Image, (job_id, index))
        assert image.image_key is not None
        assert image.thumbnail_key is not None
        return image.image_key, image.thumbnail_key


def batch(engine: Engine, batch_id: int) -> Batch:
    with Session(engine, expire_on_commit=False) as session:
        return session.get_one(Batch, batch_id)


def job(engine: Engine, job_id: int) -> Job:
    with Session(engine, expire_on_commit=False) as session:
        return session.get_one(Job, job_id)


def image_states(engine: Engine, job_id: int) -> list[ImageState]:
    with Session(engine) as session:
        return list(session.scalars(select(Image.state).where(Image.job_id == job_id).order_by(Image.index)))
