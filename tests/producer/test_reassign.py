"""Workers are told what to serve: what is read of the database for it."""

from datetime import UTC, datetime, timedelta

from rows import submit
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from farm.catalog import Catalog
from farm.models import Worker
from producer.reassign import reassign

LEASE = 30.0


def arrive(engine: Engine, name: str, stages: str, process_id: int, seconds_ago: float = 100.0) -> None:
    with Session(engine) as session, session.begin():
        session.add(
            Worker(
                id=name,
                hostname="h",
                process_id=process_id,
                device="cpu",
                device_name="",
                pipeline="tiny",
                stages=stages.split(),
                flexible=["stages"],
                could_serve=["tiny"],
                load_seconds=1.0,
                started_at=datetime.now(UTC) - timedelta(seconds=seconds_ago),
            )
        )


def leave(engine: Engine, name: str, seconds_ago: float = 0.0) -> None:
    """As a process that is being executed anew."""
    with Session(engine) as session, session.begin():
        session.get_one(Worker, name).stopped_at = datetime.now(UTC)
        session.get_one(Worker, name).heartbeat_at = datetime.now(UTC) - timedelta(seconds=seconds_ago)


def wanted(engine: Engine) -> dict[str, list[str]]:
    with Session(engine) as session:
        return {
            worker.id: worker.wanted_stages
            for worker in session.scalars(select(Worker).where(Worker.wanted_stages.is_not(None)))
        }


def test_nothing_is_decided_while_a_worker_is_on_its_way(engine: Engine) -> None:
    """One that was executed anew was taken for gone, and the other one told to do the work of both."""
    submit(engine, images=4, refiner_split=0.8)
    arrive(engine, "first", "base", 1)
    arrive(engine, "second", "base", 2)
    assert reassign(engine, Catalog.load(), LEASE) == 1
    assert wanted(engine) == {"second": ["refiner"]} or wanted(engine) == {"first": ["refiner"]}
    (going,) = wanted(engine)
    assert reassign(engine, Catalog.load(), LEASE) == 0, "it finishes what it holds"
    leave(engine, going)
    assert reassign(engine, Catalog.load(), LEASE) == 0, "it loads"
    arrive(engine, "returned", "refiner", {"first": 1, "second": 2}[going], seconds_ago=20)
    assert reassign(engine, Catalog.load(), LEASE) == 0, "all is well"
    assert wanted(engine).keys() == {going}


def test_one_that_does_not_come_back_is_not_waited_for_forever(engine: Engine) -> None:
    submit(engine, images=4, refiner_split=0.8)
    arrive(engine, "first", "base", 1)
    arrive(engine, "second", "base", 2)
    reassign(engine, Catalog.load(), LEASE)
    (going,) = wanted(engine)
    leave(engine, going, seconds_ago=60)
    assert reassign(engine, Catalog.load(), LEASE) == 1
    assert sorted(wanted(engine).values()) == [["base", "refiner"], ["refiner"]], "who stays does both"
