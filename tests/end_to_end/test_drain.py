"""A drained worker takes nothing new and finishes what it holds; resumed, it takes its share again."""

from pathlib import Path

import httpx
import pytest
import redis
from running import WAIT_SECONDS, RunningFarm, running_farm, wait_until
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from farm.models import Activity, Batch
from farm.settings import Settings

WORKER = ["--device", "cpu"]
JOB = {"steps": 6, "size": "64x64", "batch_size": 1, "seed": 1}
SLOW = {**JOB, "steps": 150, "size": "256x256"}


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    return Settings(
        **settings.model_dump(exclude_unset=True), lease_seconds=5, heartbeat_seconds=0.3, lost_message_seconds=1
    )


def tell(farm: RunningFarm, worker: dict, verb: str) -> dict:
    headers = {"Authorization": f"Bearer {farm.token}"}
    answer = httpx.post(f"{farm.url}/api/v1/workers/{worker['id']}/{verb}", headers=headers, timeout=WAIT_SECONDS)
    assert answer.status_code == 200, answer.text
    return answer.json()


def renderers(engine: Engine, job_id: int) -> set[str | None]:
    with Session(engine) as session:
        return set(session.scalars(select(Batch.worker_id).where(Batch.job_id == job_id)))


def render(farm: RunningFarm, engine: Engine, images: int = 12) -> set[str | None]:
    """Workers that rendered (or last touched) the batches of a new job."""
    job_id = farm.client.submit([f"p{n}" for n in range(images)], **JOB).id
    assert farm.await_job(job_id)["state"] == "completed"
    return renderers(engine, job_id)


def log_of(farm: RunningFarm) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(farm.logs.glob("*worker.log")))


def test_a_drained_worker_leaves_the_work_to_the_others(impatient: Settings, engine: Engine, tmp_path: Path) -> None:
    with running_farm(impatient, tmp_path, WORKER, WORKER) as farm:
        first, second = (worker["id"] for worker in farm.workers())
        worker = next(worker for worker in farm.workers() if worker["id"] == first)

        assert tell(farm, worker, "drain")["draining"] is True
        wait_until(lambda: "drained: no further batch is taken" in log_of(farm), "the worker to hear of it")
        assert render(farm, engine) == {second}
        # The queues that it left must not come back with the broker's connection.
        with redis.Redis.from_url(impatient.broker_url or "") as client:
            client.flushdb()
            client.client_kill_filter(_type="normal", skipme=True)
        assert render(farm, engine) == {second}

        assert tell(farm, worker, "resume")["draining"] is False
        wait_until(lambda: "batches are taken again" in log_of(farm), "the worker to hear of it")
        wait_until(lambda: render(farm, engine) == {first, second}, "both workers to take their share")
        with Session(engine) as session:
            noted = session.execute(select(Activity.action, Activity.details).order_by(Activity.id)).all()
        assert [tuple(row) for row in noted if row.action.startswith("worker.")] == [
            ("worker.drain", {"worker": first}),
            ("worker.resume", {"worker": first}),
        ]


def test_what_a_drained_worker_holds_it_finishes_and_what_waits_is_kept(
    impatient: Settings, engine: Engine, tmp_path: Path
) -> None:
    with running_farm(impatient, tmp_path, WORKER) as farm:
        job_id = farm.client.submit(["long", "next"], **SLOW).id
        worker = wait_until(lambda: next((w for w in farm.workers() if w["batches"]), None), "a batch at work")
        tell(farm, worker, "drain")
        wait_until(lambda: farm.workers()[0]["state"] == "drained", "the end of what it held")
        # Its second slot may have taken the other batch before it heard of it; whatever it took is done.
        job = farm.job(job_id)
        assert job["images"]["failed"] == 0
        waiting = farm.client.submit(["later"], **JOB).id
        wait_until(lambda: farm.client.queues()[0]["hints"], "the hint")
        (base,) = [q for q in farm.client.queues() if q["stage"] == "base"]
        assert base["hints"] == ["The only worker is drained: resume it."]
        assert (base["workers"], base["workers_drained"]) == (0, 1)
        assert farm.job(waiting)["state"] == "queued"
        tell(farm, worker, "resume")
        assert farm.await_job(waiting)["state"] == "completed"
        assert farm.await_job(job_id)["images"]["completed"] == 2
