"""Devices that fail, as torch would tell of it, and pictures that cannot be rendered."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from doors import own_services
from mishaps import arm, assert_all_there, assert_nothing_lost, both_workers, farm_of_faults, has_struck, submit
from running import RunningFarm, wait_until

POISON = '("a fox", "a hen").blend(1, -1)'


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    changes = {"hang_seconds": 4, "max_failures": 2, "max_failed_images": 6}
    directory = tmp_path_factory.mktemp("devices")
    with own_services() as services, farm_of_faults(services, directory, models_directory, **changes) as farm:
        yield farm


def test_memory_runs_out(farm: RunningFarm) -> None:
    arm(farm, "worker.call", "out of memory")
    # Half of them at a time from then on.
    assert_all_there(farm, submit(farm, 4, batch_size=4))
    assert has_struck(farm, "worker.call")
    assert_nothing_lost(farm)


@pytest.mark.parametrize(
    ("fault", "reason"), [("lost", "AcceleratorError: CUDA error"), ("hang", "the device hangs: no step for 4 seconds")]
)
def test_a_device_fails_and_its_process_ends(farm: RunningFarm, fault: str, reason: str) -> None:
    before = both_workers(farm)
    arm(farm, "worker.call", fault)
    assert_all_there(farm, submit(farm, 6))
    (told,) = wait_until(
        lambda: [one for one in farm.client.workers() if one["id"] in before and one["state"] == "failed"],
        "the end of its process",
    )
    assert told["stopped_because"].startswith(reason)
    # Its supervisor has started it again.
    wait_until(lambda: len(farm.workers()) == 2, "the next process")
    assert_nothing_lost(farm)


def test_what_is_no_picture_is_not_passed_off_as_one(farm: RunningFarm) -> None:
    # Once may be the device's fault; twice, and the image has failed.
    arm(farm, "worker.made", "nan")
    assert_all_there(farm, submit(farm, 1))
    arm(farm, "worker.made", "nan", "nan")
    job_id = submit(farm, 1, seed=3)
    assert farm.await_job(job_id)["state"] == "failed"
    (image,) = farm.images(job_id)
    assert (image["state"], image["file_url"]) == ("failed", None)
    assert "NaN or infinity" in image["error"]
    assert_nothing_lost(farm)


def test_a_poisoned_image_fails_alone(farm: RunningFarm) -> None:
    prompts = ["a fox", "a hen", POISON, "an owl"]
    job_id = farm.client.submit(prompts, steps=4, size="64x64", seed=1, batch_size=4, prompt_syntax="compel").id
    job = farm.await_job(job_id)
    assert (job["state"], job["images"]["completed"], job["images"]["failed"]) == ("failed", 3, 1)
    failed = farm.images(job_id)[2]
    assert failed["state"] == "failed"
    assert "make no finite embedding" in failed["error"]
    assert_nothing_lost(farm)


def test_a_poisoned_job_is_stopped_and_others_go_on(farm: RunningFarm) -> None:
    hopeless = farm.client.submit([POISON] * 40, steps=4, size="64x64", seed=1, batch_size=1, prompt_syntax="compel").id
    other = submit(farm, 6)
    job = farm.await_job(hopeless)
    assert (job["state"], job["images"]["failed"]) == ("failed", 40)
    errors = [image["error"] for image in farm.images(hopeless)]
    untried = [error for error in errors if error.startswith("not tried: 6 images of the job had failed")]
    assert len(untried) >= 20
    assert_all_there(farm, other)
    assert_nothing_lost(farm)
