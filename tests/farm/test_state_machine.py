"""Jobs, batches and images against a simple model: whatever happens in whatever order, both tell the same story.

Claims are kept for ever, so that each may write late, twice, or after its job was cancelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rows import LEASE, keys_for, submit
from sqlalchemy import Engine, select, text
from typing_extensions import override

from farm.claims import Claim, Wish, claim, renew
from farm.control import cancel_job, pause_job, resume_job, retry_failed
from farm.models import Batch, Image, Job
from farm.removal import remove_pictures, render_removed
from farm.states import BatchState, ImageState, JobState, Stage
from farm.transitions import (
    Dispatched,
    FailureOutcome,
    FinishedPicture,
    fail_attempt,
    finish_base,
    finish_batch,
    hand_back,
    queue_ready_batches,
    return_lost_messages,
)
from producer.audit import RULES

MAX_FAILURES = 2
#: Few, so that much happens to each.
MOST_JOBS = 2
UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
LIVE = (BatchState.READY, BatchState.QUEUED, BatchState.RUNNING)


#: Which of those that there are, counted from the last.
RECENTLY = st.integers(0, 3)


def recent(those: Sequence[Any], ago: int) -> Any:
    return those[-1 - min(ago, len(those) - 1)]


@dataclass
class BatchModel:
    job_id: int
    images: list[int]
    refined: bool
    state: BatchState = BatchState.READY
    stage: Stage = Stage.BASE
    attempt: int = 0
    failures: int = 0


@dataclass
class JobModel:
    images: dict[int, ImageState]
    state: JobState = JobState.QUEUED
    paused: bool = False
    removed: set[int] = field(default_factory=set)


class Farm(RuleBasedStateMachine):
    """What people and machines may do to a farm."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.job: dict[int, JobModel] = {}
        self.batch: dict[int, BatchModel] = {}
        self.messages: list[Dispatched] = []
        self.claims: list[Claim] = []
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE jobs, events, doomed_objects CASCADE"))

    # -- what the model knows ----------------------------------------------------------------------------------------

    def holds(self, held: Claim) -> bool:
        """Whether a claim is still the right to render."""
        batch = self.batch[held.batch_id]
        return (batch.state, batch.attempt, batch.stage) == (BatchState.RUNNING, held.attempt, held.stage)

    def end(self, job_id: int) -> None:
        """A job ends with its last image."""
        job = self.job[job_id]
        states = {*job.images.values()}
        if job.state is JobState.RUNNING and ImageState.PENDING not in states:
            job.state = JobState.FAILED if ImageState.FAILED in states else JobState.COMPLETED
            job.paused = False

    # -- what machines do --------------------------------------------------------------------------------------------

    @precondition(lambda self: sum(job.state in UNFINISHED for job in self.job.values()) < MOST_JOBS)
    @rule(images=st.integers(1, 4), batch_size=st.integers(1, 3), refined=st.booleans())
    def submit(self, images: int, batch_size: int, refined: bool) -> None:
        job_id = submit(self.engine, images, batch_size, refiner_split=0.5 if refined else None)
        self.job[job_id] = JobModel(dict.fromkeys(range(images), ImageState.PENDING))
        self.find_batches(job_id, refined=refined)

    def find_batches(self, job_id: int, *, refined: bool) -> None:
        """Learn the ids of batches that are new, and check which images they hold."""
        with self.engine.connect() as connection:
            query = select(Batch.id, Image.index).join(Image, Image.batch_id == Batch.id).where(Batch.job_id == job_id)
            for batch_id, index in connection.execute(query.order_by(Batch.id, Image.index)):
                if batch_id not in self.batch:
                    self.batch[batch_id] = BatchModel(job_id, [], refined)
                if index not in self.batch[batch_id].images:
                    self.batch[batch_id].images.append(index)

    @precondition(lambda self: self.job)
    @rule(ago=RECENTLY, count=st.integers(1, 3))
    def dispatch(self, ago: int, count: int) -> None:
        job_id = recent([*self.job], ago)
        sent: list[Dispatched] = []
        for stage in Stage:
            these = queue_ready_batches(self.engine, {job_id: count}, stage)
            ready = [
                number
                for number, batch in sorted(self.batch.items())
                if (batch.job_id, batch.state, batch.stage) == (job_id, BatchState.READY, stage)
            ]
            assert [one.batch_id for one in these] == ready[:count]
            sent += these
        for one in sent:
            batch = self.batch[one.batch_id]
            batch.state, batch.attempt = BatchState.QUEUED, batch.attempt + 1
            assert one.attempt == batch.attempt
        self.messages += sent

    @precondition(lambda self: self.messages)
    @rule(ago=RECENTLY, wrong_stage=st.sampled_from([False] * 5 + [True]))
    def claim(self, ago: int, wrong_stage: bool) -> None:
        """Also of messages that are old, or delivered again."""
        message = recent(self.messages, ago)
        batch = self.batch[message.batch_id]
        stage = batch.stage if not wrong_stage else next(one for one in Stage if one is not batch.stage)
        expected = (batch.state, batch.attempt, batch.stage) == (BatchState.QUEUED, message.attempt, stage)
        held = claim(self.engine, message.batch_id, message.attempt, stage, "w", LEASE)
        assert (held is not None) == expected
        if held is None:
            return
        assert [image.index for image in held.images] == sorted(batch.images)
        batch.state = BatchState.RUNNING
        if self.job[batch.job_id].state is JobState.QUEUED:
            self.job[batch.job_id].state = JobState.RUNNING
        self.claims.append(held)

    @precondition(lambda self: self.claims)
    @rule(ago=RECENTLY, what=st.sampled_from(["beat", "finish", "finish", "fail", "lose_latents", "give_back"]))
    def write(self, ago: int, what: str) -> None:
        """What a worker, or recovery in its place, writes of a claim, however late."""
        getattr(self, what)(recent(self.claims, ago))

    def beat(self, held: Claim) -> None:
        answer = renew(self.engine, "w", [(held.batch_id, held.attempt)], LEASE)
        batch = self.batch[held.batch_id]
        if batch.attempt == held.attempt and batch.state is BatchState.RUNNING:
            expected = Wish.GO_ON
        elif batch.attempt == held.attempt and batch.state is BatchState.CANCELLED:
            expected = Wish.CANCELLED
        else:
            expected = Wish.LOST
        assert answer.wishes == {(held.batch_id, held.attempt): expected}

    def finish(self, held: Claim) -> None:
        batch = self.batch[held.batch_id]
        expected = self.holds(held)
        if held.stage is Stage.BASE and batch.refined:
            latents = f"latents/{held.batch_id}-{held.attempt}"
            assert finish_base(self.engine, held.batch_id, held.attempt, latents, "ab", 1) == expected
            if expected:
                batch.state, batch.stage = BatchState.QUEUED, Stage.REFINER
            return
        pictures = [FinishedPicture(one.index, *keys_for(held, one.index), "ab", 7) for one in held.images]
        assert finish_batch(self.engine, held, "w", pictures, 1) == expected
        if expected:
            batch.state = BatchState.COMPLETED
            for index in batch.images:
                self.job[batch.job_id].images[index] = ImageState.COMPLETED
            self.end(batch.job_id)

    def fail(self, held: Claim, *, latents_lost: bool = False) -> None:
        """An error, or a lease that ran out."""
        batch = self.batch[held.batch_id]
        lost = latents_lost and batch.stage is Stage.REFINER
        # An attempt keeps its number from the base to the refiner: whoever has it may fail it.
        valid = (batch.state, batch.attempt) == (BatchState.RUNNING, held.attempt)
        outcome = fail_attempt(self.engine, held.batch_id, held.attempt, "broken", MAX_FAILURES, latents_lost=lost)
        assert (outcome is not FailureOutcome.STALE) == valid
        if not valid:
            return
        batch.failures += 1
        if lost:
            batch.stage = Stage.BASE
        if batch.failures < MAX_FAILURES:
            batch.state = BatchState.READY
            with self.engine.begin() as connection:
                connection.execute(text("UPDATE batches SET run_after = now()"))
        elif len(batch.images) > 1:
            batch.state, batch.images = BatchState.SPLIT, []
            self.find_batches(batch.job_id, refined=batch.refined)
        else:
            batch.state = BatchState.FAILED
            self.job[batch.job_id].images[batch.images[0]] = ImageState.FAILED
            self.end(batch.job_id)

    def lose_latents(self, held: Claim) -> None:
        self.fail(held, latents_lost=True)

    def give_back(self, held: Claim) -> None:
        batch = self.batch[held.batch_id]
        valid = (batch.state, batch.attempt) == (BatchState.RUNNING, held.attempt)
        assert hand_back(self.engine, held.batch_id, held.attempt) == valid
        if valid:
            batch.state = BatchState.READY

    @precondition(lambda self: self.messages)
    @rule(ago=RECENTLY)
    def lose(self, ago: int) -> None:
        message = recent(self.messages, ago)
        batch = self.batch[message.batch_id]
        valid = (batch.state, batch.attempt) == (BatchState.QUEUED, message.attempt)
        assert return_lost_messages(self.engine, [(message.batch_id, message.attempt)]) == valid
        if valid:
            batch.state = BatchState.READY

    # -- what people do ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.job)
    @rule(ago=RECENTLY, what=st.sampled_from(["cancel", "pause", "resume", "retry", "retry", "remove", "restore"]))
    def ask(self, ago: int, what: str) -> None:
        getattr(self, what)(recent([*self.job], ago))

    def cancel(self, job_id: int) -> None:
        job = self.job[job_id]
        valid = job.state in UNFINISHED
        assert cancel_job(self.engine, job_id) == valid
        if valid:
            job.state, job.paused = JobState.CANCELLED, False
            for batch in self.batch.values():
                if batch.job_id == job_id and batch.state in LIVE:
                    batch.state = BatchState.CANCELLED
            for index, state in job.images.items():
                if state is ImageState.PENDING:
                    job.images[index] = ImageState.CANCELLED

    def pause(self, job_id: int) -> None:
        job = self.job[job_id]
        valid = job.state in UNFINISHED
        assert pause_job(self.engine, job_id) == valid
        if valid:
            job.paused = True
            for batch in self.batch.values():
                if (batch.job_id, batch.state) == (job_id, BatchState.QUEUED):
                    batch.state = BatchState.READY

    def resume(self, job_id: int) -> None:
        job = self.job[job_id]
        assert resume_job(self.engine, job_id) == (job.state in UNFINISHED)
        job.paused = False

    def retry(self, job_id: int) -> None:
        job = self.job[job_id]
        failed = [index for index, state in job.images.items() if state is ImageState.FAILED]
        expected = 0 if job.state is JobState.CANCELLED else len(failed)
        assert retry_failed(self.engine, job_id) == expected
        if expected:
            for batch in self.batch.values():
                if (batch.job_id, batch.state) == (job_id, BatchState.FAILED):
                    batch.state, batch.stage, batch.failures = BatchState.READY, Stage.BASE, 0
            job.images |= dict.fromkeys(failed, ImageState.PENDING)
            if job.state is JobState.FAILED:
                job.state = JobState.RUNNING

    def remove(self, job_id: int, index: int = 0) -> None:
        job = self.job[job_id]
        if job.state not in (JobState.COMPLETED, JobState.FAILED) or job.images[index] is not ImageState.COMPLETED:
            return
        with self.engine.begin() as connection:
            connection.execute(select(Job.id).where(Job.id == job_id).with_for_update())
            assert remove_pictures(connection, job_id, [index]) == (index not in job.removed)
        job.removed.add(index)

    def restore(self, job_id: int) -> None:
        job = self.job[job_id]
        assert render_removed(self.engine, job_id) == (0 if job.state is JobState.CANCELLED else len(job.removed))
        if job.removed and job.state is not JobState.CANCELLED:
            job.images |= dict.fromkeys(job.removed, ImageState.PENDING)
            job.state = JobState.RUNNING
            refined = False
            for batch in self.batch.values():
                if batch.job_id == job_id and job.removed & {*batch.images}:
                    batch.images = [index for index in batch.images if index not in job.removed]
                    refined = batch.refined
            job.removed.clear()
            self.find_batches(job_id, refined=refined)

    # -- and after each of these -------------------------------------------------------------------------------------

    @invariant()
    def the_rows_are_as_the_model_says(self) -> None:
        with self.engine.connect() as connection:
            jobs = connection.execute(select(Job.id, Job.state, Job.paused_at.is_not(None))).all()
            assert {*map(tuple, jobs)} == {(number, job.state, job.paused) for number, job in self.job.items()}
            batches = connection.execute(
                select(Batch.id, Batch.state, Batch.stage, Batch.attempt, Batch.failures)
            ).all()
            assert {*map(tuple, batches)} == {
                (number, batch.state, batch.stage, batch.attempt, batch.failures)
                for number, batch in self.batch.items()
            }
            images = connection.execute(select(Image.job_id, Image.index, Image.state)).all()
            assert {*map(tuple, images)} == {
                (number, index, state) for number, job in self.job.items() for index, state in job.images.items()
            }

    @override
    def teardown(self) -> None:
        with self.engine.connect() as connection:
            for one in RULES:
                assert connection.execute(text(one.broken)).all() == [], one.name


def test_the_farm_does_what_the_model_does(engine: Engine) -> None:
    few = settings(
        max_examples=60,
        stateful_step_count=60,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(lambda: Farm(engine), settings=few)
