"""Which pictures can be seen while they are denoised."""

from sqlalchemy import Engine, select

from farm.models import Batch, Image
from farm.progress import ProgressBoard
from farm.states import BatchState


def previewed_images(engine: Engine, board: ProgressBoard, job_id: int) -> list[int]:
    """Indices of the job's images that are being rendered and have a preview now. One query, one round trip."""
    query = (
        select(Image.index)
        .join(Batch, Batch.id == Image.batch_id)
        .where(Batch.job_id == job_id, Batch.state == BatchState.RUNNING)
        .order_by(Image.index)
    )
    with engine.connect() as connection:
        indices = connection.scalars(query).all()
    return board.previewed(job_id, indices) if indices else []
