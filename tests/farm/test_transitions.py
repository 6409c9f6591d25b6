"""Every guarded write of state: who may move what, and that a stale attempt changes nothing."""

from datetime import timedelta
from typing import Any

import pytest
from rows import LEASE, batch, image_states, job, keys_for, pictures_of, start, submit
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from farm.claims import Claim, Wish, claim, claim_companions, renew
from farm.control import cancel_job, pause_job, retry_failed
from farm.doomed import UNTIL_NOTICED
from farm.keys import latents_key
from farm.models import Batch, DoomedObject, Image, Job
from farm.spec import INTERACTIVE_PRIORITY
from farm.states import BatchState, ImageState, JobState, Stage
from farm.transitions import (
    FailureOutcome,
    fail_attempt,
    finish_base,
    finish_batch,
    hand_back,
    queue_ready_batches,
    return_lost_messages,
)


def test_a_batch_goes_from_ready_to_finished_pictures(engine: Engine) -> None:
    job_id = submit(engine, 2)
    (sent,) = queue_ready_batches(engine, {job_id: 5}, Stage.BASE)
    assert (sent.attempt, sent.stage, sent.pipeline, sent.refined) == (1, Stage.BASE, "tiny", True)

    held = claim(engine, sent.batch_id, 1, Stage.BASE, "w", LEASE)
    assert held is not None
    assert [(image.index, image.prompt, image.seed) for image in held.images] == [
        (0, "prompt 0", 7),
        (1, "prompt 1", 8),
    ]
    assert job(engine, job_id).state is JobState.RUNNING
    assert finish_base(engine, held.batch_id, 1, "latents", "00", 1.5)

    refining = claim(engine, sent.batch_id, 1, Stage.REFINER, "w2", LEASE)
    assert refining is not None
    assert (refining.latents_key, refining.latents_sha256) == ("latents", "00")
    assert finish_batch(engine, refining, "w2", pictures_of(refining), 0.5)

    ended = job(engine, job_id)
    assert (ended.state, ended.images_completed, ended.images_failed) == (JobState.COMPLETED, 2, 0)
    assert ended.finished_at is not None
    finished = batch(engine, sent.batch_id)
    assert (finished.state, finished.base_seconds, finished.refiner_seconds) == (BatchState.COMPLETED, 1.5, 0.5)
    assert image_states(engine, job_id) == [ImageState.COMPLETED] * 2


def test_only_one_claim_wins_and_only_with_the_latest_attempt(engine: Engine) -> None:
    job_id = submit(engine, 1)
    (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    assert claim(engine, sent.batch_id, 99, Stage.BASE, "w", LEASE) is None
    assert claim(engine, sent.batch_id, 1, Stage.REFINER, "w", LEASE) is None
    assert claim(engine, 10**9, 1, Stage.BASE, "w", LEASE) is None
    assert job(engine, job_id).state is JobState.QUEUED
    assert claim(engine, sent.batch_id, 1, Stage.BASE, "w", LEASE) is not None
    assert claim(engine, sent.batch_id, 1, Stage.BASE, "w2", LEASE) is None


def test_a_zombies_late_writes_change_nothing(engine: Engine) -> None:
    job_id = submit(engine, 2)
    zombie = start(engine, job_id)
    fail_attempt(engine, zombie.batch_id, zombie.attempt, "lease ran out", max_failures=5)
    living = start(engine, job_id, worker_id="w2")
    assert living.attempt == zombie.attempt + 1

    assert not finish_base(engine, zombie.batch_id, zombie.attempt, "old", "00", 1)
    assert not finish_batch(engine, zombie, "w", pictures_of(zombie), 1)
    assert not hand_back(engine, zombie.batch_id, zombie.attempt)
    assert fail_attempt(engine, zombie.batch_id, zombie.attempt, "x", max_failures=1) is FailureOutcome.STALE
    answer = renew(engine, "w", [(zombie.batch_id, zombie.attempt)], LEASE)
    assert answer.wishes == {(zombie.batch_id, zombie.attempt): Wish.LOST}

    state = batch(engine, living.batch_id)
    assert (state.state, state.attempt, state.worker_id) == (BatchState.RUNNING, living.attempt, "w2")
    assert image_states(engine, job_id) == [ImageState.PENDING] * 2


def test_the_heartbeat_renews_and_brings_back_a_cancellation(engine: Engine) -> None:
    job_id = submit(engine, 2)
    held = start(engine, job_id)
    pair = (held.batch_id, held.attempt)
    before = batch(engine, held.batch_id).lease_until
    assert renew(engine, "w", [pair], LEASE * 2).wishes == {pair: Wish.GO_ON}
    after = batch(engine, held.batch_id).lease_until
    assert before is not None
    assert after is not None
    assert after > before

    assert cancel_job(engine, job_id)
    assert renew(engine, "w", [pair], LEASE).wishes == {pair: Wish.CANCELLED}
    assert not finish_base(engine, held.batch_id, held.attempt, "late", "00", 1)
    assert image_states(engine, job_id) == [ImageState.CANCELLED] * 2
    assert job(engine, job_id).state is JobState.CANCELLED
    assert not cancel_job(engine, job_id)


def test_cancel_keeps_what_is_finished(engine: Engine) -> None:
    job_id = submit(engine, 4, batch_size=2, refiner_split=None)
    held = start(engine, job_id)
    assert finish_batch(engine, held, "w", pictures_of(held), 1)
    assert cancel_job(engine, job_id)
    assert image_states(engine, job_id) == [ImageState.COMPLETED] * 2 + [ImageState.CANCELLED] * 2
    assert job(engine, job_id).images_completed == 2


def test_a_failing_batch_is_split_until_the_bad_image_stands_alone(engine: Engine) -> None:
    job_id = submit(engine, 5, batch_size=5, refiner_split=None)
    bad = 3
    while job(engine, job_id).state in (JobState.QUEUED, JobState.RUNNING):
        with engine.begin() as connection:  # the back-off between attempts need not be waited for
            connection.execute(update(Batch).values(run_after=text("now()")))
        held = start(engine, job_id)
        if bad in [image.index for image in held.images]:
            fail_attempt(engine, held.batch_id, held.attempt, "ValueError: bad image", max_failures=2)
        else:
            assert finish_batch(engine, held, "w", pictures_of(held), 1)

    expected = [ImageState.COMPLETED] * 5
    expected[bad] = ImageState.FAILED
    assert image_states(engine, job_id) == expected
    ended = job(engine, job_id)
    assert (ended.state, ended.images_completed, ended.images_failed) == (JobState.FAILED, 4, 1)
    with Session(engine) as session:
        assert session.get_one(Image, (job_id, bad)).error == "ValueError: bad image"


def test_lost_latents_start_over_at_the_base(engine: Engine) -> None:
    job_id = submit(engine, 1)
    held = start(engine, job_id)
    finish_base(engine, held.batch_id, held.attempt, "latents", "00", 1)
    claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", LEASE)
    outcome = fail_attempt(engine, held.batch_id, held.attempt, "latents gone", 5, latents_lost=True)
    assert outcome is FailureOutcome.RETRY
    state = batch(engine, held.batch_id)
    assert (state.state, state.stage, state.latents_key) == (BatchState.READY, Stage.BASE, None)


def test_a_refiner_attempt_that_fails_keeps_its_latents(engine: Engine) -> None:
    job_id = submit(engine, 1)
    held = start(engine, job_id)
    finish_base(engine, held.batch_id, held.attempt, "latents", "00", 1)
    claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", LEASE)
    fail_attempt(engine, held.batch_id, held.attempt, "killed", 5)
    (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.REFINER)
    assert (sent.stage, sent.attempt) == (Stage.REFINER, held.attempt + 1)


def test_lost_messages_go_back_in_line_under_a_new_attempt(engine: Engine) -> None:
    job_id = submit(engine, 1)
    (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    assert return_lost_messages(engine, [(sent.batch_id, sent.attempt)]) == 1
    (again,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    assert again.attempt == sent.attempt + 1
    assert claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", LEASE) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET state = 'completed'",
        "UPDATE jobs SET finished_at = now()",
        "UPDATE jobs SET images_completed = 3",
        "UPDATE jobs SET state = 'failed', finished_at = now(), images_completed = 2",
        "UPDATE batches SET state = 'running'",
        "UPDATE batches SET state = 'queued'",
        "UPDATE batches SET state = 'completed'",
        "UPDATE batches SET lease_until = now()",
        "UPDATE batches SET stage = 'refiner'",
        "UPDATE batches SET latents_key = 'x'",
        "UPDATE images SET state = 'completed', finished_at = now()",
        "UPDATE images SET state = 'failed', finished_at = now()",
        "UPDATE images SET image_key = 'x', thumbnail_key = 'x', sha256 = 'x'",
        "UPDATE images SET seed = -1",
    ],
)
def test_the_database_refuses_contradictions(engine: Engine, statement: str) -> None:
    submit(engine, 2)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(statement))


def interactive(engine: Engine, images: int = 1, **fields: Any) -> int:
    """A job of the interactive class, in batches of the pipeline's own size."""
    return submit(engine, images, **{"batch_size": None, "priority": INTERACTIVE_PRIORITY, **fields})


def companions_of(engine: Engine, leader: Claim, room: int = 7) -> list[int]:
    """Jobs of the batches that join."""
    return [joined.job_id for joined in claim_companions(engine, leader, "w", LEASE, room)]


def test_companions_join_a_call_with_leases_and_attempts_of_their_own(engine: Engine) -> None:
    leader = start(engine, interactive(engine))
    assert leader.interactive
    assert leader.may_share
    ready, queued = interactive(engine, 2), interactive(engine)
    (sent,) = queue_ready_batches(engine, {queued: 1}, Stage.BASE)

    # Who is queued goes first, and whose message comes later finds nothing.
    first, second = claim_companions(engine, leader, "w", LEASE, 7)
    assert {(held.job_id, held.attempt, len(held.images)) for held in (first, second)} == {
        (queued, 1, 1),
        (ready, 1, 2),
    }
    assert claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w2", LEASE) is None
    assert [job(engine, job_id).state for job_id in (ready, queued)] == [JobState.RUNNING] * 2
    pairs = [(held.batch_id, held.attempt) for held in (leader, first, second)]
    assert set(renew(engine, "w", pairs, LEASE).wishes.values()) == {Wish.GO_ON}
    assert finish_base(engine, *pairs[1], "latents", "00", 1)
    assert companions_of(engine, leader) == []


def test_who_cannot_or_must_not_join_a_call(engine: Engine) -> None:
    leader = start(engine, interactive(engine))
    strangers = [
        submit(engine, 1, batch_size=None),
        interactive(engine, batch_size=1),
        interactive(engine, num_inference_steps=3),
        interactive(engine, negative_prompt="blurred"),
        interactive(engine, refiner_split=None),
        interactive(engine, 2, test_run=1),
    ]
    paused, cancelled, failed = interactive(engine), interactive(engine), interactive(engine)
    pause_job(engine, paused)
    cancel_job(engine, cancelled)
    once = start(engine, failed)
    fail_attempt(engine, once.batch_id, once.attempt, "broken", max_failures=2)
    full = interactive(engine, 4)
    # Of the test run's two images the first may join; the other is held.
    assert companions_of(engine, leader, room=3) == [strangers[-1]]
    assert companions_of(engine, leader, room=3) == []
    assert companions_of(engine, leader, room=4) == [full]
    assert not start(engine, strangers[0]).may_share
    assert not start(engine, failed).may_share


def test_a_job_that_is_being_changed_is_passed_by(engine: Engine) -> None:
    leader = start(engine, interactive(engine))
    locked, free = interactive(engine), interactive(engine)
    with Session(engine) as session:
        session.get_one(Job, locked, with_for_update=True)
        assert companions_of(engine, leader) == [free]
    assert companions_of(engine, leader) == [locked]


def test_a_transaction_whose_client_vanished_lets_go_of_what_it_holds(engine: Engine) -> None:
    """A machine that is cut off in the middle of one must not keep others from the job."""
    with engine.connect() as vanished, engine.connect() as other:
        told = other.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
        assert told == "15s"
        job_id = submit(engine, 1)
        vanished.execute(text("SELECT id FROM jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        # Not to wait for it here: the same with less. Last, for it holds from now on.
        vanished.execute(text("SET SESSION idle_in_transaction_session_timeout = '100ms'"))
        other.execute(text("SELECT id FROM jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        vanished.invalidate()


def test_a_job_that_mostly_fails_is_stopped_and_no_other(engine: Engine) -> None:
    hopeless, other = submit(engine, 9, batch_size=1), submit(engine, 2, batch_size=1)
    under_way = start(engine, hopeless)
    (waiting,) = queue_ready_batches(engine, {hopeless: 1}, Stage.BASE)
    for number in range(2):
        held = start(engine, hopeless)
        fail_attempt(engine, held.batch_id, held.attempt, f"ValueError: broken {number}", 1, 2)
    assert image_states(engine, hopeless) == [ImageState.PENDING] + [ImageState.FAILED] * 8
    with Session(engine) as session:
        errors = [session.get_one(Image, (hopeless, index)).error for index in (2, 8)]
    reason = "not tried: 2 images of the job had failed, most of those that ended; the last one: ValueError: broken 1"
    assert errors == ["ValueError: broken 0", reason]
    assert claim(engine, waiting.batch_id, waiting.attempt, Stage.BASE, "w", LEASE) is None
    # What was being rendered ends by itself, and with it the job.
    assert job(engine, hopeless).state is JobState.RUNNING
    key = latents_key(hopeless, under_way.batch_id, under_way.attempt)
    assert finish_base(engine, under_way.batch_id, under_way.attempt, key, "00", 1)
    refining = claim(engine, under_way.batch_id, under_way.attempt, Stage.REFINER, "w", LEASE)
    assert refining is not None
    assert finish_batch(engine, refining, "w", pictures_of(refining), 1)
    ended = job(engine, hopeless)
    assert (ended.state, ended.images_completed, ended.images_failed) == (JobState.FAILED, 1, 8)
    assert image_states(engine, other) == [ImageState.PENDING] * 2
    # Somebody mended it: all of it is tried again.
    assert retry_failed(engine, hopeless) == 8
    assert image_states(engine, hopeless) == [ImageState.COMPLETED] + [ImageState.PENDING] * 8
    assert len(queue_ready_batches(engine, {hopeless: 9}, Stage.BASE)) == 8


def test_a_job_most_of_whose_images_succeed_goes_on(engine: Engine) -> None:
    job_id = submit(engine, 9, batch_size=1, refiner_split=None)
    for _ in range(4):
        held = start(engine, job_id)
        assert finish_batch(engine, held, "w", pictures_of(held), 1)
    for _ in range(4):
        held = start(engine, job_id)
        fail_attempt(engine, held.batch_id, held.attempt, "broken", 1, 2)
    assert image_states(engine, job_id)[8] is ImageState.PENDING


def test_what_an_attempt_left_is_doomed_when_it_is_given_up(engine: Engine) -> None:
    held = start(engine, submit(engine, 2, batch_size=2, refiner_split=None, output_format="webp"))
    fail_attempt(engine, held.batch_id, held.attempt, "broken", 5)
    pictures = {key for index in range(2) for key in keys_for(held, index, "webp")}
    assert doomed(engine) == pictures
    base = start(engine, submit(engine, 1))
    hand_back(engine, base.batch_id, base.attempt)
    latents = latents_key(base.job_id, base.batch_id, base.attempt)
    assert doomed(engine) == pictures | {latents}
    with Session(engine) as session:
        # Who was given up may still be writing.
        soonest = session.scalar(select(func.min(DoomedObject.not_before) - func.now()))
    assert soonest is not None
    assert soonest > UNTIL_NOTICED - timedelta(minutes=1)


def doomed(engine: Engine) -> set[str]:
    with Session(engine) as session:
        return {*session.scalars(select(DoomedObject.key))}
