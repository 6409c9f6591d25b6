"""What the broker lost is found, and nothing else is taken for lost."""

from collections.abc import Iterator

import pytest
import redis
from rows import LEASE, batch, hire, submit
from sqlalchemy import Engine

from farm.broker import make_celery, queue_name
from farm.claims import claim
from farm.embedded import free_port
from farm.priorities import PriorityClass, message_priority
from farm.settings import Settings
from farm.states import BatchState, Stage
from producer.dispatch import Dispatcher
from producer.recovery import LostMessages

QUEUE = f"{queue_name('tiny', Stage.BASE)}\x06\x16{message_priority(PriorityClass.NORMAL, first=True)}"


@pytest.fixture
def broker(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.broker_url or "") as client:
        yield client


@pytest.fixture
def lost_messages(engine: Engine, settings: Settings) -> LostMessages:
    impatient = settings.model_copy(update={"lost_message_seconds": 0.0})
    return LostMessages(engine, make_celery(impatient), impatient)


def ring_for(engine: Engine, settings: Settings, batches: int) -> list[int]:
    """A job's batches, whose messages lie in the broker; the oldest comes out first."""
    hire(engine)
    submit(engine, batches, batch_size=1)
    wide = settings.model_copy(update={"queue_depth": batches})
    assert Dispatcher(engine, make_celery(wide), wide).dispatch() == batches
    return [*range(1, batches + 1)]


def test_a_message_that_is_gone_is_found_at_the_second_look(
    engine: Engine, settings: Settings, broker: redis.Redis, lost_messages: LostMessages
) -> None:
    first, second, third = ring_for(engine, settings, 3)
    # The newest one: that others wait longer says nothing.
    assert broker.lpop(QUEUE)
    assert lost_messages.recover() == 0
    assert lost_messages.recover() == 1
    assert [batch(engine, one).state for one in (first, second, third)] == ["queued", "queued", "ready"]
    assert lost_messages.recover() == 0

    broker.flushdb()
    assert lost_messages.recover() == 0
    assert lost_messages.recover() == 2


def test_a_message_that_was_just_taken_is_not_lost(
    engine: Engine, settings: Settings, broker: redis.Redis, lost_messages: LostMessages
) -> None:
    first, second = ring_for(engine, settings, 2)
    assert broker.rpop(QUEUE)
    assert lost_messages.recover() == 0
    assert claim(engine, first, 1, Stage.BASE, "w", LEASE) is not None
    # Somebody else's is on its way by the time of the second look.
    assert broker.rpop(QUEUE)
    assert lost_messages.recover() == 0
    assert claim(engine, second, 1, Stage.BASE, "w", LEASE) is not None
    assert lost_messages.recover() == 0
    assert batch(engine, second).state is BatchState.RUNNING


def test_what_strangers_put_into_a_queue_harms_nobody(
    engine: Engine, settings: Settings, broker: redis.Redis, lost_messages: LostMessages
) -> None:
    (only,) = ring_for(engine, settings, 1)
    broker.delete(QUEUE)
    for strange in (b"", b"\xff", b"[]", b'{"body": 5}', b'{"body": "WzEsIDJd"}', b'{"body": "W1siYSIsIDFdXQ=="}'):
        broker.lpush(QUEUE, strange)
    broker.delete(QUEUE + "0")
    assert lost_messages.recover() == 0
    broker.ltrim(QUEUE, 1, 0)
    assert lost_messages.recover() == 0
    assert lost_messages.recover() == 1
    assert batch(engine, only).state is BatchState.READY


def test_a_broker_that_is_away_for_long_is_outlived(engine: Engine, settings: Settings) -> None:
    (only,) = ring_for(engine, settings, 1)
    away = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0", "lost_message_seconds": 0.0})
    assert LostMessages(engine, make_celery(away), away).recover() == 0
    assert batch(engine, only).state is BatchState.QUEUED
