"""What dies or gets lost in mid-work comes back by itself, and every image ends exactly once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.app.control import Control
from conftest import Services, farm_settings
from running import RunningFarm, running_farm, wait_until
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from farm.broker import make_celery, waiting_messages
from farm.database import open_database
from farm.models import Batch, Image
from farm.settings import Settings
from farm.spec import INTERACTIVE_PRIORITY
from farm.states import BatchState, ImageState, Stage
from farm.storage import DirectoryStore, open_store, sha256

WORKER = ["--device", "cpu"]
#: Many steps of a tiny picture: long enough to be caught in the middle.
SLOW = {"steps": 120, "size": "128x128", "seed": 1, "batch_size": 4}
#: Far longer than anybody waits.
ENDLESS = SLOW | {"steps": 1000, "size": "1024x1024"}

#: A farm that soon gives up what it hears nothing of.
IMPATIENT = {"lease_seconds": 3, "heartbeat_seconds": 0.3, "lost_message_seconds": 1}


@pytest.fixture(scope="module")
def farm(services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    """One farm for all mishaps: it has to be whole again after each."""
    directory = tmp_path_factory.mktemp("faults")
    with (
        farm_settings(services, directory, models_directory) as settings,
        running_farm(settings.model_copy(update=IMPATIENT), directory, WORKER) as farm,
    ):
        yield farm


@pytest.fixture
def engine(farm: RunningFarm) -> Iterator[Engine]:
    engine = open_database(farm.settings)
    yield engine
    engine.dispose()


def rendering(farm: RunningFarm, job_id: int, stage: Stage) -> dict | None:
    """The worker that is in the middle of denoising a batch of the job in this stage."""
    for worker in farm.workers():
        for batch in worker["batches"]:
            if (batch["job_id"], batch["stage"]) == (job_id, stage) and batch["step"]:
                return worker
    return None


def assert_every_image_exactly_once(settings: Settings, job: dict, expected: int) -> None:
    assert job["state"] == "completed"
    assert job["images"] == {
        "total": expected,
        "completed": expected,
        "failed": 0,
        "cancelled": 0,
        "pending": 0,
        "removed": 0,
    }
    engine = open_database(settings)
    with Session(engine) as session:
        images = session.scalars(select(Image).where(Image.job_id == job["id"]).order_by(Image.index)).all()
    engine.dispose()
    assert [image.index for image in images] == list(range(expected))
    assert {image.state for image in images} == {ImageState.COMPLETED}
    store = open_store(settings)
    assert isinstance(store, DirectoryStore)
    for image in images:
        assert sha256(store.get(image.image_key or "")) == image.sha256
    assert len(list(store.root.glob(f"images/{job['id']}/*.png"))) == expected


@pytest.mark.parametrize("stage", [Stage.BASE, Stage.REFINER])
def test_a_worker_killed_in_the_middle_of_a_batch(farm: RunningFarm, engine: Engine, stage: Stage) -> None:
    split = 0.9 if stage is Stage.BASE else 0.1
    job_id = farm.client.submit([f"p{n}" for n in range(8)], **SLOW, refiner_split=split).id
    worker = wait_until(lambda: rendering(farm, job_id, stage), f"a batch in its {stage} stage")
    killed = [batch["id"] for batch in worker["batches"]]
    os.kill(worker["process_id"], signal.SIGKILL)
    assert_every_image_exactly_once(farm.settings, farm.await_job(job_id), 8)
    with Session(engine) as session:
        for batch in session.scalars(select(Batch).where(Batch.id.in_(killed))):
            assert batch.state is BatchState.COMPLETED
            assert batch.attempt >= 2
            assert batch.worker_id != worker["id"]


def test_a_flushed_broker_with_work_of_both_classes_in_it(farm: RunningFarm, engine: Engine) -> None:
    # While it is rendered the worker takes no more than one message of each class.
    endless = farm.client.submit(["endless"], **ENDLESS).id
    wait_until(lambda: rendering(farm, endless, Stage.BASE), "a batch at work")
    bulk = farm.client.submit([f"p{n}" for n in range(24)], **{**SLOW, "steps": 40}).id
    interactive = farm.client.submit(
        ["a", "b", "c"], **{**SLOW, "steps": 4, "batch_size": 1, "priority": INTERACTIVE_PRIORITY}
    ).id
    app = make_celery(farm.settings)
    for is_interactive in (True, False):
        wait_until(
            lambda chosen=is_interactive: waiting_messages(app, "tiny.base", interactive=chosen),
            "messages of both classes in the broker",
        )
    app.close()
    with redis.Redis.from_url(farm.settings.broker_url or "") as client:
        client.flushdb()
    farm.client.job(endless).cancel()
    assert_every_image_exactly_once(farm.settings, farm.await_job(interactive), 3)
    assert_every_image_exactly_once(farm.settings, farm.await_job(bulk), 24)
    with Session(engine) as session:
        for job_id in (interactive, bulk):
            assert session.scalar(select(func.max(Batch.attempt)).where(Batch.job_id == job_id)) >= 2


def test_workers_answer_while_they_render_and_cancel_stops_them(farm: RunningFarm, engine: Engine) -> None:
    job_id = farm.client.submit(["a very long job"], **ENDLESS).id
    wait_until(lambda: rendering(farm, job_id, Stage.BASE), "a batch at work")
    app = make_celery(farm.settings)
    answers = wait_until(lambda: Control(app).ping(timeout=2), "an answer")
    assert [list(answer.values()) for answer in answers] == [[{"ok": "pong"}]]
    app.close()

    farm.client.job(job_id).cancel()
    next_id = farm.client.submit(["next"], steps=4, seed=1).id
    # The device would be busy for minutes if the first job were rendered on.
    assert farm.await_job(next_id, seconds=90)["state"] == "completed"
    job = farm.job(job_id)
    assert (job["state"], job["images"]["cancelled"]) == ("cancelled", 1)
    with Session(engine) as session:
        assert session.scalars(select(Image.state).where(Image.job_id == job_id)).one() is ImageState.CANCELLED


def test_a_standby_producer_takes_over(farm: RunningFarm) -> None:
    leader = farm.processes[0]
    farm.start("producer")
    leader.kill()
    leader.wait()
    job_id = farm.client.submit(["a"], steps=4).id
    assert farm.await_job(job_id)["state"] == "completed"


@pytest.fixture
def other_settings(services: Services, tmp_path: Path, models_directory: Path) -> Iterator[Settings]:
    """A farm whose messages that of the module does not take."""
    with farm_settings(services, tmp_path, models_directory, broker_database=2) as settings:
        yield settings


def test_missing_latents_are_rendered_again(other_settings: Settings, tmp_path: Path) -> None:
    # Only the base works at first, so that the latents can be taken away before the refiner comes.
    impatient = other_settings.model_copy(update=IMPATIENT)
    with running_farm(impatient, tmp_path, [*WORKER, "--stage", "base"]) as farm:
        job_id = farm.client.submit(["a", "b"], steps=6, seed=1).id
        objects = open_store(impatient)
        assert isinstance(objects, DirectoryStore)
        (latents,) = wait_until(lambda: list(objects.root.glob("latents/*/*.safetensors")), "latents")
        latents.write_bytes(b"damaged")
        farm.start("worker", *WORKER, "--stage", "refiner")
        assert_every_image_exactly_once(impatient, farm.await_job(job_id), 2)
