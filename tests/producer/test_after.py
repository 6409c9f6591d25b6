"""Jobs that come after others, and start from their pictures."""

import pytest
from rows import job, submit
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from farm.control import cancel_job
from farm.errors import InvalidSubmissionError, ObjectMissingError
from farm.models import Batch, Image
from farm.pictures import stored_picture


def starts_from(engine: Engine, job_id: int) -> list[str | None]:
    with Session(engine) as session:
        images = session.scalars(select(Image).where(Image.job_id == job_id).order_by(Image.index))
        return [(image.parameters or {}).get("image") for image in images]


def test_a_job_starts_from_the_pictures_of_the_one_before(engine: Engine) -> None:
    first = submit(engine, 3, size="256x192")
    second = submit(engine, 3, image=f"job:{first}", strength=0.5)
    assert starts_from(engine, second) == [f"job:{first}/{index}" for index in range(3)]
    after = job(engine, second)
    assert after.after_job_id == first, "it waits without being told"
    with Session(engine) as session:
        batches = session.scalars(select(Batch.parameters).where(Batch.job_id == second)).all()
    assert {(parameters["width"], parameters["height"]) for parameters in batches} == {(256, 192)}


def test_one_picture_may_be_the_start_of_all(engine: Engine) -> None:
    first = submit(engine, 3)
    second = submit(engine, 2, image=f"job:{first}/2", strength=0.5)
    assert starts_from(engine, second) == [f"job:{first}/2"] * 2


def test_what_no_job_makes_is_refused(engine: Engine) -> None:
    first = submit(engine, 2)
    for image, said in ((f"job:{first}", f"job {first} has no image 2"), ("job:77", "job 77 has no image 0")):
        with pytest.raises(InvalidSubmissionError, match=said):
            submit(engine, 3, image=image, strength=0.5)
    with pytest.raises(InvalidSubmissionError, match="there is no job 77"):
        submit(engine, 1, after=77)


def test_a_job_waits_for_one_other(engine: Engine) -> None:
    first, other = submit(engine, 1), submit(engine, 1)
    with pytest.raises(InvalidSubmissionError, match=f"pictures of job {first} are to come"):
        submit(engine, 1, image=f"job:{first}", strength=0.5, after=other)
    cancel_job(engine, first)
    third = submit(engine, 1, image=f"job:{first}", strength=0.5, after=other)
    assert job(engine, third).after_job_id == other


def test_a_picture_that_never_came_is_named(engine: Engine) -> None:
    first = submit(engine, 1)
    cancel_job(engine, first)
    with pytest.raises(ObjectMissingError, match=f"no picture 0 of job {first} to start from: that image is cancelled"):
        stored_picture(engine, first, 0)
    with pytest.raises(ObjectMissingError, match="the job was deleted"):
        stored_picture(engine, 77, 0)
