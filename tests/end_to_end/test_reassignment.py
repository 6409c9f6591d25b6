"""Workers that leave it to the farm what they serve come to serve what is needed."""

from pathlib import Path

import pytest
from running import RunningFarm, running_farm, wait_until
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from farm.models import Batch
from farm.settings import Settings

JOB = {"steps": 6, "size": "64x64", "batch_size": 2, "seed": 1}


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    return Settings(
        **settings.model_dump(exclude_unset=True), lease_seconds=10, heartbeat_seconds=0.3, lost_message_seconds=1
    )


def serving(farm: RunningFarm) -> dict[int, tuple[str, str]]:
    """What each process serves."""
    return {
        worker["process_id"]: (worker["pipeline"], " and ".join(sorted(worker["stages"])))
        for worker in farm.workers()
        if worker["alive"]
    }


def test_workers_come_to_serve_what_is_needed(impatient: Settings, engine: Engine, tmp_path: Path) -> None:
    options = ["--devices", "cpu,cpu", "--stage", "auto", "--pipeline", "auto"]
    with running_farm(impatient, tmp_path, options) as farm:
        wait_until(lambda: len(serving(farm)) == 2, "both workers")
        first = serving(farm)
        assert sorted(first.values()) == [("tiny", "base"), ("tiny", "refiner")]
        job_id = farm.client.submit(["a fox", "a hen", "an owl"], **JOB).id
        assert farm.await_job(job_id)["state"] == "completed"
        with Session(engine) as session:
            finished_by = set(session.scalars(select(Batch.worker_id).where(Batch.job_id == job_id)))
        assert len(finished_by) == 1, "the one that serves the refiner"

        # Nobody serves the other pipeline: one worker comes to it, and who stays does all of what may come. The
        # processes are the same.
        other = farm.client.submit(["a fox", "a hen"], pipeline="tiny-turbo", steps=2, size="64x64").id
        assert farm.await_job(other)["state"] == "completed"
        expected = [("tiny", "base and refiner"), ("tiny-turbo", "base")]
        wait_until(lambda: sorted(serving(farm).values()) == expected, "one that serves all of tiny")
        assert serving(farm).keys() == first.keys()
