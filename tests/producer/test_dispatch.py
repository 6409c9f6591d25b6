"""What of a farm's work is put into its queues."""

import base64
import json

import pytest
import redis
from rows import hire, submit
from sqlalchemy import Engine, text
from sqlalchemy.dialects import postgresql

from farm import transitions
from farm.broker import make_celery
from farm.control import cancel_job
from farm.priorities import PriorityClass, message_priority
from farm.settings import Settings
from farm.states import Stage
from producer.dispatch import REFINER_BACKLOG, Dispatcher, QueueKey, QueueLoad, is_held_up, queue_loads
from producer.scheduling import FIRST_BATCHES


@pytest.fixture
def dispatcher(engine: Engine, settings: Settings) -> Dispatcher:
    return Dispatcher(engine, make_celery(settings), settings)


def on_their_way(engine: Engine) -> dict[int, int]:
    query = "SELECT job_id, count(*) FROM batches WHERE state IN ('queued', 'running') GROUP BY job_id"
    with engine.connect() as connection:
        return dict(connection.execute(text(query)).all())


def test_queues_are_filled_to_their_depth_and_no_further(engine: Engine, dispatcher: Dispatcher) -> None:
    job_id = submit(engine, 40, batch_size=2)
    assert dispatcher.dispatch() == 0, "nobody is there"
    hire(engine)
    assert dispatcher.dispatch() == 2
    assert dispatcher.dispatch() == 0
    assert on_their_way(engine) == {job_id: 2}


def test_no_job_gets_more_devices_than_it_may(engine: Engine, dispatcher: Dispatcher) -> None:
    job_id = submit(engine, 40, batch_size=2, max_devices=1)
    hire(engine)
    dispatcher.dispatch()
    dispatcher.dispatch()
    assert on_their_way(engine) == {job_id: 1}


def test_a_job_waits_for_the_end_of_the_one_it_comes_after(engine: Engine, dispatcher: Dispatcher) -> None:
    first = submit(engine, 2, batch_size=2)
    second = submit(engine, 2, batch_size=2, after=first)
    hire(engine)
    dispatcher.dispatch()
    assert on_their_way(engine) == {first: 1}
    cancel_job(engine, first)
    dispatcher.dispatch()
    assert on_their_way(engine) == {second: 1}


def test_what_is_required_goes_to_those_who_have_it(engine: Engine, dispatcher: Dispatcher) -> None:
    picky = submit(engine, 8, batch_size=1, requires="vram >= 24, site=lab")
    hire(engine, "small", tags=["site=lab", "vram=8"])
    assert dispatcher.dispatch() == 0
    hire(engine, "large", tags=["site=lab", "vram=80"])
    assert dispatcher.dispatch() == 2
    assert on_their_way(engine) == {picky: 2}
    with engine.connect() as connection:
        _, queues = queue_loads(connection, 30)
    assert {queue.key.requires: queue.workers for queue in queues if queue.key.stage is Stage.BASE} == {
        "site=lab,vram>=24": 1
    }


def test_owners_get_the_share_that_was_set(engine: Engine, settings: Settings) -> None:
    busy = Dispatcher(engine, make_celery(settings), settings.model_copy(update={"queue_depth": 40}))
    ann, bob = (submit(engine, 100, batch_size=1, owner=owner) for owner in ("ann", "bob"))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO shares (owner, weight) VALUES ('ann', 3)"))
    hire(engine)
    busy.dispatch()
    sent = on_their_way(engine)
    assert abs(sent[ann] - 3 * sent[bob]) <= 3


def test_the_base_waits_for_a_refiner_that_falls_behind(engine: Engine, dispatcher: Dispatcher) -> None:
    hire(engine)
    full = QueueLoad(QueueKey("tiny", Stage.REFINER), 1, {PriorityClass.NORMAL: REFINER_BACKLOG})
    base = QueueLoad(QueueKey("tiny", Stage.BASE), 3, {})
    assert is_held_up(base, [base, full])
    assert not is_held_up(full, [base, full])
    for other in (QueueKey("sdxl-1.0", Stage.REFINER), QueueKey("tiny", Stage.REFINER, "fast")):
        assert not is_held_up(base, [base, QueueLoad(other, 1, full.queued)])
    waited_for = QueueLoad(QueueKey("tiny", Stage.REFINER), 1, {PriorityClass.INTERACTIVE: REFINER_BACKLOG})
    assert not is_held_up(base, [base, waited_for])


def test_what_is_remembered_of_jobs_goes_with_them(engine: Engine, dispatcher: Dispatcher) -> None:
    hire(engine)
    first, second = submit(engine, 2, batch_size=2), submit(engine, 2, batch_size=2)
    dispatcher.dispatch()
    cancel_job(engine, first)
    dispatcher.forget()
    assert dispatcher._costs.keys() == {second}


def test_messages_go_out_in_the_order_that_was_planned(engine: Engine, settings: Settings) -> None:
    ann, bob = (submit(engine, 30, batch_size=1, owner=owner) for owner in ("ann", "bob"))
    hire(engine)
    wide = Dispatcher(engine, make_celery(settings), settings.model_copy(update={"queue_depth": 40}))
    # First batches have places of their own.
    assert wide.dispatch() == 40 + 2 * FIRST_BATCHES
    line = f"tiny.base\x06\x16{message_priority(PriorityClass.NORMAL)}"
    with redis.Redis.from_url(settings.broker_url or "") as broker, engine.connect() as connection:
        rung = [
            json.loads(base64.b64decode(json.loads(message)["body"]))[0][0] for message in broker.lrange(line, 0, -1)
        ]
        jobs = dict(connection.execute(text("SELECT id, job_id FROM batches")).all())
    # Two owners, and neither has two more than the other at any place of the line.
    owners = [jobs[batch_id] for batch_id in reversed(rung)]
    assert len(owners) == 40
    assert all(abs(owners[:place].count(ann) - owners[:place].count(bob)) <= 1 for place in range(len(owners)))


def test_who_comes_to_a_full_queue_goes_as_far_as_its_class_has_places(engine: Engine, settings: Settings) -> None:
    wide = Dispatcher(engine, make_celery(settings), settings.model_copy(update={"queue_depth": 20}))
    hire(engine)
    low = submit(engine, 60, batch_size=1, priority=20)
    wide.dispatch()
    assert on_their_way(engine) == {low: 20}
    # The line of those above is their own, and what waits below counts for nothing in it.
    high = submit(engine, 60, batch_size=1, priority=80)
    wide.dispatch()
    assert on_their_way(engine) == {low: 20, high: 20}
    # Those above fill the lines below: only first batches have a place.
    normal = submit(engine, 60, batch_size=1, priority=50)
    wide.dispatch()
    assert on_their_way(engine) == {low: 20, high: 20, normal: FIRST_BATCHES}


def test_ready_batches_are_found_by_their_index_however_many_there_are(engine: Engine) -> None:
    jobs = [submit(engine, 4000, batch_size=1) for _ in range(2)]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("UPDATE batches SET state = 'cancelled', finished_at = now() WHERE id % 2 = 0"))
        connection.execute(text("ANALYZE batches"))
        compiled = transitions._QUEUE_READY.compile(
            dialect=postgresql.dialect(), compile_kwargs={"render_postcompile": True}
        )
        given = compiled.construct_params({"job_ids": jobs, "counts": [10, 10], "of_stage": Stage.BASE})
        explained = connection.exec_driver_sql(f"EXPLAIN {compiled}", given).scalars().all()
    plan = "\n".join(explained)
    assert "ix_batches_ready" in plan, plan
    assert "Sort" not in plan, plan
