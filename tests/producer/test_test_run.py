"""A test run renders a job's first images, and the rest waits until somebody lets it follow."""

import pytest
from sqlalchemy import Engine, func, select

from farm.catalog import Catalog
from farm.claims import claim
from farm.control import cancel_job, resume_job
from farm.errors import InvalidSubmissionError
from farm.models import Batch, Image, Job
from farm.states import BatchState, JobState, Stage
from farm.transitions import fail_attempt, queue_ready_batches
from producer.intake import Intake, Row
from producer.submit import Receipt, submit_job


def submit(engine: Engine, count: int = 10, **fields: object) -> Receipt:
    rows = Intake([Row({"prompt": f"prompt {number}"}) for number in range(count)])
    return submit_job(engine, Catalog.load(), "tiny", {"seed": 1, "batch_size": 4, **fields}, rows)


def batches(engine: Engine, job_id: int) -> list[tuple[bool, list[int]]]:
    with engine.connect() as connection:
        rows = connection.execute(
            select(Batch.id, Batch.held, func.array_agg(Image.index))
            .join(Image, Image.batch_id == Batch.id)
            .where(Batch.job_id == job_id)
            .group_by(Batch.id)
            .order_by(Batch.id)
        )
        return [(held, sorted(indices)) for _, held, indices in rows]


def test_the_first_images_share_no_batch_with_the_others(engine: Engine) -> None:
    receipt = submit(engine, test_run=3)
    assert (receipt.image_count, receipt.test_images) == (10, 3)
    assert batches(engine, receipt.job_id) == [
        (False, [0, 1, 2]),
        (True, [3, 4, 5, 6]),
        (True, [7, 8, 9]),
    ]
    with engine.connect() as connection:
        assert connection.scalar(select(Job.test_images)) == 3


def test_only_the_test_is_dispatched_until_the_job_is_resumed(engine: Engine) -> None:
    job_id = submit(engine, test_run=3).job_id
    assert len(queue_ready_batches(engine, {job_id: 10}, Stage.BASE)) == 1
    assert queue_ready_batches(engine, {job_id: 10}, Stage.BASE) == []
    assert resume_job(engine, job_id)
    assert len(queue_ready_batches(engine, {job_id: 10}, Stage.BASE)) == 2
    with engine.connect() as connection:
        assert connection.scalar(select(Job.test_images)) is None


def test_a_test_that_fails_is_split_and_goes_on(engine: Engine) -> None:
    job_id = submit(engine, test_run=4).job_id
    (sent,) = queue_ready_batches(engine, {job_id: 10}, Stage.BASE)
    assert claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", 30)
    fail_attempt(engine, sent.batch_id, sent.attempt, "broken", max_failures=1)
    assert len(queue_ready_batches(engine, {job_id: 10}, Stage.BASE)) == 2


def test_a_cancelled_test_ends_the_whole_job(engine: Engine) -> None:
    job_id = submit(engine, test_run=3).job_id
    assert cancel_job(engine, job_id)
    with engine.connect() as connection:
        assert connection.scalar(select(Job.state)) is JobState.CANCELLED
        assert set(connection.scalars(select(Batch.state))) == {BatchState.CANCELLED}
    assert not resume_job(engine, job_id)


@pytest.mark.parametrize("count", [10, 1000])
def test_a_test_of_everything_is_no_test(engine: Engine, count: int) -> None:
    receipt = submit(engine, test_run=count)
    assert receipt.test_images is None
    assert not any(held for held, _ in batches(engine, receipt.job_id))


@pytest.mark.parametrize("count", [0, 1001, "many"])
def test_a_test_that_cannot_be_is_refused(engine: Engine, count: object) -> None:
    with pytest.raises(InvalidSubmissionError, match="test_run"):
        submit(engine, test_run=count)
