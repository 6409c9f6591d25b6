"""What people do to a job, whatever the machines do at the same time."""

import pytest
from rows import LEASE, batch, image_states, job, pictures_of, start, submit
from sqlalchemy import Engine

from farm.claims import claim
from farm.control import cancel_job, change_job, pause_job, resume_job, retry_failed
from farm.states import BatchState, ImageState, JobState, Stage
from farm.transitions import fail_attempt, finish_base, finish_batch, queue_ready_batches
from producer.dispatch import QueueKey, QueueLoad, job_loads


def waiting(engine: Engine) -> dict[int, int]:
    """Batches that may be dispatched now, by job."""
    with engine.connect() as connection:
        loads = job_loads(connection, QueueLoad(QueueKey("tiny", Stage.BASE), 1, {}), 100, {}, {})
        return {load.job_id: load.ready for load in loads}


def test_a_paused_job_begins_nothing_and_finishes_what_it_began(engine: Engine) -> None:
    job_id = submit(engine, 6, batch_size=2)
    held = start(engine, job_id)
    (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    assert pause_job(engine, job_id)
    assert waiting(engine) == {}
    # The message that is still in the broker finds nothing to claim.
    assert claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", LEASE) is None
    assert batch(engine, sent.batch_id).state is BatchState.READY
    assert finish_base(engine, held.batch_id, held.attempt, "latents", "00", 1)
    refined = claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", LEASE)
    assert refined is not None
    assert finish_batch(engine, refined, "w", pictures_of(refined), 1)
    assert image_states(engine, job_id).count(ImageState.COMPLETED) == 2

    since = job(engine, job_id).paused_at
    assert pause_job(engine, job_id)
    assert job(engine, job_id).paused_at == since
    assert resume_job(engine, job_id)
    assert job(engine, job_id).paused_at is None
    assert waiting(engine) == {job_id: 2}


def test_a_paused_job_whose_last_batch_was_running_ends(engine: Engine) -> None:
    job_id = submit(engine, 2, refiner_split=None)
    held = start(engine, job_id)
    pause_job(engine, job_id)
    assert finish_batch(engine, held, "w", pictures_of(held), 1)
    ended = job(engine, job_id)
    assert (ended.state, ended.paused_at) == (JobState.COMPLETED, None)
    assert not pause_job(engine, job_id)
    assert not resume_job(engine, job_id)


def test_a_paused_job_can_be_cancelled(engine: Engine) -> None:
    job_id = submit(engine, 2)
    pause_job(engine, job_id)
    assert cancel_job(engine, job_id)
    assert job(engine, job_id).paused_at is None


def test_priority_and_name(engine: Engine) -> None:
    job_id = submit(engine, 1, refiner_split=None)
    assert change_job(engine, job_id, priority=90, name="mine")
    assert (job(engine, job_id).priority, job(engine, job_id).name) == (90, "mine")
    held = start(engine, job_id)
    finish_batch(engine, held, "w", pictures_of(held), 1)
    assert not change_job(engine, job_id, priority=10)
    assert change_job(engine, job_id, name="kept")
    assert (job(engine, job_id).priority, job(engine, job_id).name) == (90, "kept")


@pytest.mark.parametrize("lost_at", [Stage.BASE, Stage.REFINER])
def test_failed_images_are_rendered_again_from_the_base(engine: Engine, lost_at: Stage) -> None:
    job_id = submit(engine, 2, batch_size=1)
    for _ in range(2):
        held = start(engine, job_id)
        if lost_at is Stage.REFINER:
            finish_base(engine, held.batch_id, held.attempt, "latents", "00", 1)
            assert claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", LEASE)
        fail_attempt(engine, held.batch_id, held.attempt, "ValueError: bad", max_failures=1)
    assert job(engine, job_id).state is JobState.FAILED

    assert retry_failed(engine, job_id) == 2
    again = job(engine, job_id)
    assert (again.state, again.images_failed, again.finished_at) == (JobState.RUNNING, 0, None)
    assert image_states(engine, job_id) == [ImageState.PENDING] * 2
    for _ in range(2):
        held = start(engine, job_id)
        assert (held.stage, held.attempt) == (Stage.BASE, 2)
        finish_base(engine, held.batch_id, held.attempt, "latents", "00", 1)
        refined = claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", LEASE)
        assert refined is not None
        assert finish_batch(engine, refined, "w", pictures_of(refined), 1)
    assert job(engine, job_id).state is JobState.COMPLETED
    assert retry_failed(engine, job_id) == 0


def test_failed_images_of_a_running_job_can_be_retried_and_those_of_a_cancelled_one_not(engine: Engine) -> None:
    job_id = submit(engine, 2, batch_size=1, refiner_split=None)
    held = start(engine, job_id)
    fail_attempt(engine, held.batch_id, held.attempt, "ValueError: bad", max_failures=1)
    assert retry_failed(engine, job_id) == 1
    assert job(engine, job_id).state is JobState.RUNNING
    held = start(engine, job_id)
    fail_attempt(engine, held.batch_id, held.attempt, "ValueError: bad", max_failures=1)
    cancel_job(engine, job_id)
    assert retry_failed(engine, job_id) == 0
    assert ImageState.FAILED in image_states(engine, job_id)
