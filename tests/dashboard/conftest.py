"""The application on a database of its own, and jobs brought to any state by the farm's own transitions."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from rows import keys_for
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from dashboard.app import create_app
from dashboard.context import EXTENSION
from farm import claims, people, transitions
from farm.catalog import Catalog
from farm.claims import Claim, claim
from farm.models import Base, Worker
from farm.settings import Settings
from farm.states import Stage
from farm.storage import ObjectStore, open_store, sha256
from farm.transitions import FinishedPicture, finish_batch, queue_ready_batches
from producer.intake import Intake, Row
from producer.submit import submit_job

LEASE = 30.0


@dataclass(frozen=True)
class MiniFarm:
    """Moves jobs on as producer and worker do, through the same transitions and the same store."""

    engine: Engine
    store: ObjectStore

    @staticmethod
    def square(seed: int, kind: str) -> bytes:
        buffer = BytesIO()
        Image.new("RGB", (16, 16), (seed % 256, 80, 160)).save(buffer, kind)
        return buffer.getvalue()

    def submit(self, prompts: list[str] | int = 1, owner: str = "", **fields: Any) -> int:
        if isinstance(prompts, int):
            prompts = [f"prompt {number}" for number in range(prompts)]
        fields = {"seed": 7, "batch_size": 1, "refiner_split": "none", **fields}
        rows = [Row({"prompt": prompt}) for prompt in prompts]
        return submit_job(self.engine, Catalog.load(), "tiny", fields, Intake(rows), owner).job_id

    def start(self, job_id: int, stage: Stage = Stage.BASE, worker_id: str = "w") -> Claim:
        (sent,) = transitions.queue_ready_batches(self.engine, {job_id: 1}, stage)
        held = claims.claim(self.engine, sent.batch_id, sent.attempt, stage, worker_id, LEASE)
        assert held is not None
        return held

    def finish(self, held: Claim, worker_id: str = "w") -> None:
        pictures = []
        for image in held.images:
            data = self.square(image.seed, "PNG")
            names = keys_for(held, image.index)
            self.store.put(names[0], data, "image/png")
            self.store.put(names[1], self.square(image.seed, "WEBP"), "image/webp")
            pictures.append(FinishedPicture(image.index, *names, sha256(data), len(data)))
        assert transitions.finish_batch(self.engine, held, worker_id, pictures, 1.0)

    def fail(self, held: Claim, error: str) -> None:
        transitions.fail_attempt(self.engine, held.batch_id, held.attempt, error, max_failures=1)

    def render(self, job_id: int, count: int) -> None:
        for _ in range(count):
            self.finish(self.start(job_id))

    def complete(self, images: int = 1, **fields: Any) -> int:
        job_id = self.submit(images, **fields)
        self.render(job_id, images)
        return job_id

    def add_worker(self, worker_id: str = "w", **fields: Any) -> None:
        values = {
            "hostname": "host",
            "process_id": 42,
            "device": "cuda:0",
            "device_name": "Test GPU",
            "pipeline": "tiny",
            "stages": ["base", "refiner"],
        } | fields
        transitions.register_worker(self.engine, Worker(id=worker_id, **values))


@pytest.fixture
def farm(engine: Engine, settings: Settings) -> MiniFarm:
    return MiniFarm(engine, open_store(settings))


@pytest.fixture
def make_app(request: pytest.FixtureRequest) -> Callable[[Settings], Flask]:
    """Applications whose connections are closed after the test."""

    def make(settings: Settings) -> Flask:
        app = create_app(settings)
        request.addfinalizer(app.extensions[EXTENSION].engine.dispose)
        return app

    return make


@pytest.fixture
def app(make_app: Callable[[Settings], Flask], settings: Settings) -> Flask:
    return make_app(settings)


@pytest.fixture
def let_in(engine: Engine) -> Callable[[Flask], FlaskClient]:
    """Makes programs that an administrator gave a token to; pages let them in, too."""
    token = people.make_token(engine, people.local_user(engine).user_id, "tests")

    def let_in(app: Flask) -> FlaskClient:
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    return let_in


@pytest.fixture
def client(app: Flask, let_in: Callable[[Flask], FlaskClient]) -> FlaskClient:
    return let_in(app)


@pytest.fixture
def stranger(app: Flask) -> FlaskClient:
    """A browser that is not logged in."""
    return app.test_client()


@pytest.fixture
def large_upload() -> dict[str, Any]:
    """Arguments of a request that sends a file of 2 MiB as a form does.

    Encoded by hand: the test client would leave its temporary file open.
    """
    head = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="p.txt"\r\n\r\n'
    body = head + b"a\n" * 2**20 + b"\r\n--limit--\r\n"
    return {"data": body, "content_type": "multipart/form-data; boundary=limit"}


@pytest.fixture
def row_counts(engine: Engine) -> Callable[[], dict[str, int]]:
    """How many rows each table holds, but for those of whoever asks."""

    def count() -> dict[str, int]:
        with Session(engine) as session:
            return {
                name: session.scalar(select(func.count()).select_from(table)) or 0
                for name, table in Base.metadata.tables.items()
                if name not in ("users", "api_tokens")
            }

    return count


@pytest.fixture
def render(engine: Engine, settings: Settings):
    """Renders one batch of a job whose base finishes alone, with plain colours for pictures."""

    def render(job_id: int) -> int:
        (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
        held = claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", 30)
        assert held is not None
        store = open_store(settings)
        finished = []
        for image in held.images:
            buffer = BytesIO()
            Image.new("RGB", (64, 64), (image.seed % 256, 80, 120)).save(buffer, "PNG")
            names = keys_for(held, image.index)
            for name in names:
                store.put(name, buffer.getvalue(), "image/png")
            finished.append(FinishedPicture(image.index, *names, sha256(buffer.getvalue())))
        assert finish_batch(engine, held, "w", finished, 1.0)
        return len(finished)

    return render
