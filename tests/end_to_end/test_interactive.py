"""Interactive requests overtake bulk work and share calls between owners; nobody's request harms another's."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Services, farm_settings
from PIL import Image as PillowImage
from running import RunningFarm, running_farm, wait_until
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from farm.catalog import Catalog
from farm.control import cancel_job
from farm.database import open_database
from farm.models import Batch, Image, Job
from farm.settings import Settings
from farm.spec import INTERACTIVE_PRIORITY
from farm.states import BatchState, JobState, Stage
from farm.storage import open_store
from producer.intake import Intake, Row
from producer.submit import submit_job

PROMPTS = ["a red fox", "an old owl", "a small robot", "a castle at night"]
SMALL = {"size": "128x128", "steps": 8, "watermark": False}


@pytest.fixture(scope="module")
def settings(
    services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path
) -> Iterator[Settings]:
    with farm_settings(services, tmp_path_factory.mktemp("interactive"), models_directory) as settings:
        yield Settings(**settings.model_dump(exclude_unset=True), heartbeat_seconds=0.3)


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def farm(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFarm]:
    """One worker, which serves both stages."""
    with running_farm(settings, tmp_path_factory.mktemp("logs"), ["--device", "cpu"]) as farm:
        yield farm


def submit(engine: Engine, prompts: Sequence[str], owner: str = "", **fields: Any) -> int:
    return submit_job(
        engine, Catalog.load(), "tiny", fields, Intake([Row({"prompt": p}) for p in prompts]), owner
    ).job_id


def ask(engine: Engine, prompts: Sequence[str], **fields: Any) -> list[int]:
    """One interactive job of one image for each prompt, each of another owner, with seeds that count up."""
    return [
        submit(engine, [prompt], f"owner {seed}", priority=INTERACTIVE_PRIORITY, seed=seed, **{**SMALL, **fields})
        for seed, prompt in enumerate(prompts)
    ]


def batches(engine: Engine, *job_ids: int) -> list[Batch]:
    with Session(engine, expire_on_commit=False) as session:
        return list(session.scalars(select(Batch).where(Batch.job_id.in_(job_ids)).order_by(Batch.id)))


def state(engine: Engine, job_id: int) -> JobState:
    with Session(engine) as session:
        return session.get_one(Job, job_id).state


def pictures(settings: Settings, engine: Engine, job_id: int) -> list[np.ndarray]:
    store = open_store(settings)
    with Session(engine) as session:
        keys = session.scalars(select(Image.image_key).where(Image.job_id == job_id).order_by(Image.index)).all()
    return [np.asarray(PillowImage.open(io.BytesIO(store.get(key or ""))), dtype=int) for key in keys]


@contextmanager
def busy_device(farm: RunningFarm, engine: Engine) -> Iterator[Callable[[Sequence[int]], None]]:
    """The device renders something endless, and is set free when the jobs that it is called with wait for it."""
    endless = submit(engine, ["endless"], size="256x256", steps=1000)
    wait_until(lambda: any(batch["step"] for w in farm.workers() for batch in w["batches"]), "a busy device")

    def set_free(job_ids: Sequence[int]) -> None:
        # The first is claimed and waits for its turn; the others stay in line, where it can take them along.
        def are_waiting() -> bool:
            states = [batch.state for batch in batches(engine, *job_ids)]
            return states[0] is BatchState.RUNNING and BatchState.QUEUED in states[1:]

        wait_until(are_waiting, "requests that wait for the device")
        cancel_job(engine, endless)

    try:
        yield set_free
    finally:
        cancel_job(engine, endless)


def await_ends(engine: Engine, job_ids: Sequence[int]) -> list[JobState]:
    def all_ended() -> list[JobState] | None:
        states = [state(engine, job_id) for job_id in job_ids]
        return None if {JobState.QUEUED, JobState.RUNNING} & set(states) else states

    return wait_until(all_ended, f"the ends of jobs {job_ids}")


def await_shared_call(farm: RunningFarm, job_ids: Sequence[int]) -> None:
    def rendering() -> bool:
        at_work = {batch["job_id"] for w in farm.workers() for batch in w["batches"] if batch["step"]}
        return at_work >= set(job_ids)

    wait_until(rendering, "the shared call")


def test_an_interactive_image_overtakes_bulk_work_in_both_stages(farm: RunningFarm, engine: Engine) -> None:
    bulk = submit(engine, ["bulk"] * 60, size="256x256", steps=30, batch_size=4, refiner_split=None)
    wait_until(lambda: any(b.state is BatchState.COMPLETED for b in batches(engine, bulk)), "a bulk batch's end")
    (request,) = ask(engine, ["a fox"])
    assert await_ends(engine, [request]) == [JobState.COMPLETED]
    with Session(engine) as session:
        job = session.get_one(Job, request)
        meanwhile = session.scalar(
            select(func.count())
            .select_from(Batch)
            .where(Batch.job_id == bulk, Batch.finished_at.between(job.created_at, job.finished_at))
        )
    # One was just being stored, one was in its call. Two more were in the worker's hands, two in the broker's.
    assert meanwhile <= 2
    assert any(batch.state is BatchState.READY for batch in batches(engine, bulk))
    cancel_job(engine, bulk)


def test_requests_of_different_owners_share_a_call_and_look_as_if_alone(
    farm: RunningFarm, settings: Settings, engine: Engine
) -> None:
    with busy_device(farm, engine) as set_free:
        requests = ask(engine, PROMPTS, refiner_split=0.5)
        odd = ask(engine, ["one of another shape"], refiner_split=0.5, negative_prompt="blurred")
        set_free(requests)
        assert await_ends(engine, [*requests, *odd]) == [JobState.COMPLETED] * 5
    shared = batches(engine, *requests)
    # A shared call's seconds are divided among its images.
    assert len({batch.base_seconds for batch in shared}) == 1
    assert len({batch.refiner_seconds for batch in shared}) == 1
    assert {(batch.attempt, batch.failures) for batch in shared} == {(1, 0)}
    (other,) = batches(engine, *odd)
    assert other.base_seconds != shared[0].base_seconds

    alone = submit(engine, PROMPTS, seed=0, batch_size=1, refiner_split=0.5, **SMALL)
    assert await_ends(engine, [alone]) == [JobState.COMPLETED]
    for request, expected in zip(requests, pictures(settings, engine, alone), strict=True):
        (picture,) = pictures(settings, engine, request)
        assert np.abs(picture - expected).max() <= 1


def test_a_request_that_cannot_be_rendered_fails_alone(farm: RunningFarm, engine: Engine) -> None:
    with busy_device(farm, engine) as set_free:
        broken = '("a fox", "an owl").blend(1)'
        requests = ask(engine, ["a fox", broken, "an owl"], prompt_syntax="compel", refiner_split=None)
        set_free(requests)
        assert await_ends(engine, requests) == [JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED]
    fox, bad, owl = batches(engine, *requests)
    assert [(batch.attempt, batch.failures) for batch in (fox, owl)] == [(1, 0), (1, 0)]
    assert bad.failures == 2
    assert "Blend" in (bad.error or "")


def test_a_cancelled_companion_stops_nobody_else(farm: RunningFarm, engine: Engine) -> None:
    with busy_device(farm, engine) as set_free:
        requests = ask(engine, PROMPTS[:3], steps=120, refiner_split=None)
        set_free(requests)
        await_shared_call(farm, requests)
        cancel_job(engine, requests[0])
        assert await_ends(engine, requests) == [JobState.CANCELLED, JobState.COMPLETED, JobState.COMPLETED]
    cancelled, *others = batches(engine, *requests)
    assert cancelled.state is BatchState.CANCELLED
    assert [(batch.attempt, batch.stage) for batch in others] == [(1, Stage.BASE)] * 2
    assert others[0].base_seconds == others[1].base_seconds


def test_a_shared_call_that_all_have_cancelled_is_no_failure(farm: RunningFarm, engine: Engine) -> None:
    def failures() -> int:
        return sum(path.read_text(errors="replace").count("a shared call failed") for path in farm.logs.glob("*.log"))

    before = failures()
    with busy_device(farm, engine) as set_free:
        requests = ask(engine, PROMPTS[:2], steps=1000, refiner_split=None)
        set_free(requests)
        await_shared_call(farm, requests)
        for job_id in requests:
            cancel_job(engine, job_id)
        # Whoever comes next gets the device, once it is free.
        assert await_ends(engine, ask(engine, ["next"])) == [JobState.COMPLETED]
    assert [batch.failures for batch in batches(engine, *requests)] == [0, 0]
    assert failures() == before
