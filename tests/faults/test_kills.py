"""Processes that are killed, or stand still, at every point of a picture's way: each image still ends exactly once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from doors import own_services
from mishaps import (
    SLOW,
    arm,
    assert_all_there,
    assert_nothing_lost,
    farm_of_faults,
    go_on,
    has_struck,
    stopped_processes,
    submit,
    times_sent,
)
from receiver import receiver
from running import RunningFarm, wait_until
from sqlalchemy import func, select, update

from farm.database import open_database
from farm.models import Delivery, DoomedObject

WORKER_POINTS = (
    "worker.received",
    "worker.claimed",
    "worker.denoising",
    "worker.latents_stored",
    "worker.base_committed",
    "worker.picture_stored",
    "worker.pictures_stored",
    "worker.batch_committed",
)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    """One farm for all mishaps: it has to be whole again after each."""
    with (
        own_services() as services,
        farm_of_faults(services, tmp_path_factory.mktemp("kills"), models_directory, allowed_hosts="127.0.0.1") as farm,
    ):
        yield farm


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_is_killed(farm: RunningFarm, point: str) -> None:
    arm(farm, point)
    assert_all_there(farm, submit(farm, 6))
    assert has_struck(farm, point)
    assert_nothing_lost(farm)


@pytest.mark.parametrize("point", ["worker.denoising", "worker.latents_stored", "worker.pictures_stored"])
def test_a_zombie_comes_back_after_its_lease(farm: RunningFarm, point: str) -> None:
    arm(farm, point, "stop")
    job_id = submit(farm, 6)
    (zombie,) = wait_until(lambda: stopped_processes(farm), "a worker that stands still")
    assert_all_there(farm, job_id)
    pictures = {image["index"]: image["sha256"] for image in farm.images(job_id)}
    go_on(zombie)
    # It goes on with its batch, finds that it has lost it, and takes its share again.
    next_job = submit(farm, 8)
    assert_all_there(farm, next_job)
    assert zombie.is_running()
    assert {image["index"]: image["sha256"] for image in farm.images(job_id)} == pictures
    assert_nothing_lost(farm)


@pytest.mark.parametrize("point", ["dispatch.queued", "dispatch.rang"])
def test_the_producer_is_killed(farm: RunningFarm, point: str) -> None:
    producer = leading(farm)
    arm(farm, point)
    job_id = submit(farm, 12)
    assert producer.wait(240) != 0
    farm.start("producer")
    assert_all_there(farm, job_id)
    assert_nothing_lost(farm)


def test_the_producer_is_killed_while_it_removes_objects(farm: RunningFarm) -> None:
    job_id = submit(farm, 3)
    assert_all_there(farm, job_id)
    producer = leading(farm)
    arm(farm, "janitor.removed")
    farm.client.job(job_id).delete()
    assert producer.wait(240) != 0
    farm.start("producer")
    engine = open_database(farm.settings)
    with engine.connect() as connection:
        of_job = select(DoomedObject.key).where(DoomedObject.key.like(f"images/{job_id}/%"))
        wait_until(lambda: not connection.scalars(of_job).all() or connection.rollback(), "the objects to go")
    engine.dispose()
    assert_nothing_lost(farm)


def test_the_producer_is_killed_between_an_answer_and_its_record(farm: RunningFarm) -> None:
    with receiver() as hook:
        webhook = farm.client.request("POST", "/api/v1/webhooks", json={"url": hook.url, "kinds": ["job.completed"]})
        producer = leading(farm)
        arm(farm, "webhooks.sent")
        job_id = submit(farm, 1)
        hook.wait_for(1)
        producer.wait(240)
        # Whoever tries a delivery has it for a minute.
        engine = open_database(farm.settings)
        with engine.begin() as connection:
            connection.execute(update(Delivery).values(next_attempt_at=func.now()))
        engine.dispose()
        farm.start("producer")
        assert_all_there(farm, job_id)
        # At least once, and told apart by its id.
        first, again = hook.wait_for(2)[:2]
        assert first.headers["webhook-id"] == again.headers["webhook-id"]
        assert first.body == again.body
        farm.client.request("DELETE", f"/api/v1/webhooks/{webhook.json()['id']}")


@pytest.mark.parametrize("point", ["submit.written", "submit.committed"])
def test_the_dashboard_is_killed_in_the_middle_of_a_submission(farm: RunningFarm, point: str) -> None:
    before = {job.id for job in farm.client.jobs()}
    arm(farm, point)
    accepted: list[int] = []
    asking = threading.Thread(target=lambda: accepted.append(submit(farm, 3)))
    asking.start()
    dashboard = next(one for one in reversed(farm.processes) if "dashboard" in one.args)
    assert dashboard.wait(240) != 0
    farm.start("dashboard")
    asking.join(240)
    # The client asked again, with the same key: whether the first was committed or not, there is one job.
    assert len(accepted) == 1
    assert {job.id for job in farm.client.jobs()} - before == {*accepted}
    assert_all_there(farm, *accepted)
    assert_nothing_lost(farm)


def test_two_producers_believe_that_they_lead(farm: RunningFarm) -> None:
    old = psutil.Process(leading(farm).pid)
    old.suspend()
    new = farm.start("producer")
    during = submit(farm, 6, **SLOW)
    assert_all_there(farm, during)
    # It wakes in the middle of its round, and sends what it had chosen.
    old.resume()
    after = [submit(farm, 4) for _ in range(4)]
    assert_all_there(farm, *after)
    assert_nothing_lost(farm)
    assert new.poll() is None
    new.kill()
    new.wait()
    assert_all_there(farm, submit(farm, 2))
    assert {times for job_id in after for times in times_sent(farm, job_id).values()} == {1}, "batches were sent twice"


def leading(farm: RunningFarm) -> "psutil.Popen":
    """The producer that runs."""
    return next(one for one in reversed(farm.processes) if "producer" in one.args and one.poll() is None)
