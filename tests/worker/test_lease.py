"""Leases: the heartbeat renews them, and brings back why a batch must stop."""

import time

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from farm.catalog import Catalog
from farm.claims import Claim, claim
from farm.control import cancel_job
from farm.database import open_database
from farm.errors import RenderInterrupted
from farm.models import Batch
from farm.settings import Settings
from farm.states import Stage
from farm.transitions import fail_attempt, queue_ready_batches
from producer.intake import Intake, Row
from producer.submit import submit_job
from worker.lease import LeaseKeeper


def start(engine: Engine, settings: Settings) -> Claim:
    job_id = submit_job(engine, Catalog.load(), "tiny", {}, Intake([Row({"prompt": "a"})])).job_id
    (sent,) = queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    held = claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", settings.lease_seconds)
    assert held is not None
    return held


def test_a_beat_renews_what_is_held(engine: Engine, settings: Settings) -> None:
    held = start(engine, settings)
    keeper = LeaseKeeper(engine, settings, "w")
    with Session(engine) as session, keeper.hold(held) as lease:
        before = session.scalars(select(Batch.lease_until)).one()
        keeper.beat()
        session.rollback()
        assert session.scalars(select(Batch.lease_until)).one() > before
        lease.check()


def test_a_cancelled_job_stops_its_batch(engine: Engine, settings: Settings) -> None:
    held = start(engine, settings)
    keeper = LeaseKeeper(engine, settings, "w")
    with keeper.hold(held) as lease:
        cancel_job(engine, held.job_id)
        lease.check()
        keeper.beat()
        with pytest.raises(RenderInterrupted, match="cancelled"):
            lease.check()


def test_a_batch_that_was_taken_away_stops(engine: Engine, settings: Settings) -> None:
    held = start(engine, settings)
    keeper = LeaseKeeper(engine, settings, "w")
    with keeper.hold(held) as lease:
        fail_attempt(engine, held.batch_id, held.attempt, "lease ran out", 5)
        keeper.beat()
        with pytest.raises(RenderInterrupted, match="lost"):
            lease.check()


def test_without_a_database_the_lease_ends_by_itself(engine: Engine, settings: Settings) -> None:
    impatient = Settings(
        **settings.model_dump(exclude_unset=True), lease_seconds=0.2, heartbeat_seconds=0.05, log_level="ERROR"
    )
    held = start(engine, impatient)
    away = open_database(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
    keeper = LeaseKeeper(away, impatient, "w")
    keeper.start()
    with keeper.hold(held) as lease:
        deadline = time.monotonic() + 10

        def check_until_lost() -> None:
            while time.monotonic() < deadline:
                lease.check()

        with pytest.raises(RenderInterrupted, match="lost"):
            check_until_lost()
    keeper.stop()
    away.dispose()
