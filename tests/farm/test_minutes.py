"""Minutes add up what ended, in the transaction that ends it; what changed nothing adds nothing."""

import pytest
from rows import LEASE, pictures_of, start, submit
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from farm.claims import claim
from farm.minutes import megapixel_steps, stage_steps
from farm.models import Batch, RenderMinute
from farm.settings import Settings
from farm.spec import SharedParameters
from farm.states import Stage
from farm.transitions import fail_attempt, finish_base, finish_batch
from producer.recovery import recover_expired_leases

MINIMAL = {"pipeline": "tiny", "width": 1024, "height": 512, "num_inference_steps": 20, "guidance_scale": 5}


def totals(engine: Engine) -> dict[tuple[str, Stage], tuple[float, ...]]:
    """Sums per worker and stage, whatever the minute: batches, images, pictures, seconds, megapixel steps, failures."""
    found: dict[tuple[str, Stage], tuple[float, ...]] = {}
    with Session(engine) as session:
        for row in session.scalars(select(RenderMinute)):
            counts = (row.batches, row.images, row.pictures, row.seconds, row.megapixel_steps, row.failures)
            before = found.get((row.worker_id, row.stage), (0,) * 6)
            found[row.worker_id, row.stage] = tuple(a + b for a, b in zip(before, counts, strict=True))
    return found


def test_both_stages_add_up_for_their_workers(engine: Engine) -> None:
    job_id = submit(engine, 4, batch_size=2, steps=10, size="512x512", refiner_split=0.8)
    for seconds in (1.5, 2.5):
        held = start(engine, job_id, worker_id="b")
        assert finish_base(engine, held.batch_id, held.attempt, "l", "00", seconds)
        refining = claim(engine, held.batch_id, held.attempt, Stage.REFINER, "r", LEASE)
        assert refining is not None
        assert finish_batch(engine, refining, "r", pictures_of(refining), 0.5)
    found = totals(engine)
    megapixels = 512 * 512 / 1e6
    assert found["b", Stage.BASE] == pytest.approx((2, 4, 0, 4.0, 4 * 8 * megapixels, 0))
    assert found["r", Stage.REFINER] == pytest.approx((2, 4, 4, 1.0, 4 * 2 * megapixels, 0))


def test_a_base_that_finishes_alone_makes_pictures(engine: Engine) -> None:
    job_id = submit(engine, 3, batch_size=3, steps=10, size="512x512", refiner_split="none")
    held = start(engine, job_id, worker_id="b")
    assert finish_batch(engine, held, "b", pictures_of(held), 3.0)
    assert totals(engine)["b", Stage.BASE][:4] == (1, 3, 3, 3.0)


def test_a_stale_attempt_adds_nothing(engine: Engine) -> None:
    job_id = submit(engine, 2, batch_size=2)
    zombie = start(engine, job_id, worker_id="z")
    fail_attempt(engine, zombie.batch_id, zombie.attempt, "x", max_failures=5)
    before = totals(engine)
    assert before == {("z", Stage.BASE): (0, 0, 0, 0, 0, 1)}
    assert not finish_base(engine, zombie.batch_id, zombie.attempt, "l", "00", 1)
    assert not finish_batch(engine, zombie, "z", pictures_of(zombie), 1)
    fail_attempt(engine, zombie.batch_id, zombie.attempt, "x", max_failures=5)
    assert totals(engine) == before


def test_a_lease_that_ran_out_is_a_failure_of_its_worker(engine: Engine, settings: Settings) -> None:
    job_id = submit(engine, 1)
    held = start(engine, job_id, worker_id="dead")
    with engine.begin() as connection:
        connection.execute(update(Batch).where(Batch.id == held.batch_id).values(lease_until=Batch.created_at))
    assert recover_expired_leases(engine, settings) == 1
    assert totals(engine) == {("dead", Stage.BASE): (0, 0, 0, 0, 0, 1)}


@pytest.mark.parametrize(
    ("changes", "base", "refiner"),
    [
        ({}, 20, 0),
        ({"refiner_split": 0.8}, 16, 4),
        ({"refiner_strength": 0.3, "refiner_steps": 30}, 20, 9),
        ({"strength": 0.5}, 10, 0),
        ({"strength": 0.5, "refiner_split": 0.8}, 6, 4),
        ({"timesteps": (999, 600, 200)}, 3, 0),
        ({"sigmas": (14.6, 6.3, 1.0, 0.0)}, 3, 0),
        ({"scheduler": "dpmpp_2m_karras"}, 20, 0),
    ],
)
def test_steps_are_counted_by_stage(changes: dict, base: int, refiner: int) -> None:
    shared = SharedParameters.model_validate({**MINIMAL, **changes})
    assert (stage_steps(shared, Stage.BASE), stage_steps(shared, Stage.REFINER)) == (base, refiner)
    assert megapixel_steps(shared, Stage.BASE) == pytest.approx(base * 1024 * 512 / 1e6)
