"""The application on a database of its own, and jobs brought to any state by the farm's own transitions."""

from collections.abc import Iterator
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import Engine

from dashboard.app import create_app
from dashboard.context import EXTENSION
from farm import keys
from farm.settings import Settings
from farm.states import Stage
from farm.storage import open_store, sha256
from farm.transitions import FinishedPicture, claim, finish_batch, queue_ready_batches


@pytest.fixture
def client(settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(settings)
    yield app.test_client()
    app.extensions[EXTENSION].engine.dispose()


@pytest.fixture
def render(engine: Engine, settings: Settings):
    """Renders one batch of a job whose base finishes alone, with plain colours for pictures."""

    def render(job_id: int) -> int:
        (sent,) = queue_ready_batches(engine, job_id, Stage.BASE, 1)
        held = claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", 30)
        assert held is not None
        store = open_store(settings)
        finished = []
        for image in held.images:
            buffer = BytesIO()
            Image.new("RGB", (64, 64), (image.seed % 256, 80, 120)).save(buffer, "PNG")
            names = keys.image_key(job_id, image.index), keys.thumbnail_key(job_id, image.index)
            for name in names:
                store.put(name, buffer.getvalue(), "image/png")
            finished.append(FinishedPicture(image.index, *names, sha256(buffer.getvalue())))
        assert finish_batch(engine, held, "w", finished, 1.0)
        return len(finished)

    return render
