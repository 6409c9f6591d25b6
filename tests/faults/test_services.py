"""Services that go away, come back empty, answer wrongly or run full: work waits for them, and nothing is lost."""

import base64
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from doors import Door, Postgres, Services, Trouble, late, own_services, refuse, wrong
from kombu.exceptions import OperationalError
from mishaps import SLOW, assert_all_there, assert_nothing_lost, both_workers, farm_of_faults, submit, times_sent
from running import RunningFarm, wait_until
from sqlalchemy import select

from farm.broker import make_celery, queue_name, ring, waiting_messages
from farm.database import open_database
from farm.errors import ConflictError
from farm.models import Batch
from farm.priorities import BULK_MESSAGES
from farm.settings import Settings
from farm.states import Stage

#: Longer than a lease. ``TEST_CUT_SECONDS`` has the same done for as long as one likes.
CUT_SECONDS = float(os.environ.get("TEST_CUT_SECONDS", "6"))
KEEPING = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(scope="module")
def own() -> Iterator[Services]:
    with own_services(KEEPING) as services:
        yield services


@pytest.fixture(scope="module")
def farm(own: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    """One farm for all mishaps: it has to be whole again after each."""
    with farm_of_faults(own, tmp_path_factory.mktemp("services"), models_directory) as farm:
        yield farm


def under_way(farm: RunningFarm, images: int = 16, **fields: Any) -> int:
    """A job of which some is done and some is not."""
    job_id = submit(farm, images, **SLOW | {"steps": 30} | fields)
    wait_until(lambda: farm.job(job_id)["images"]["completed"], "the first pictures")
    return job_id


def cut(door: Door, seconds: float = CUT_SECONDS) -> None:
    door.shut()
    time.sleep(seconds)
    door.open()


# -- the broker ------------------------------------------------------------------------------------------------------


def test_the_broker_is_away_for_a_while(farm: RunningFarm, own: Services) -> None:
    job_id = under_way(farm)
    cut(own.to_valkey)
    assert_all_there(farm, job_id, submit(farm))
    assert_nothing_lost(farm)


@pytest.mark.parametrize("keeps", [True, False], ids=["with its data", "without"])
def test_the_broker_is_restarted(farm: RunningFarm, own: Services, keeps: bool) -> None:
    job_id = under_way(farm)
    own.valkey.stop()
    if not keeps:
        shutil.rmtree(own.directory / "appendonlydir")
    own.valkey.start(*KEEPING)
    assert_all_there(farm, job_id, submit(farm))
    assert_nothing_lost(farm)


def test_the_brokers_memory_is_full(farm: RunningFarm, own: Services) -> None:
    job_id = under_way(farm)
    workers = both_workers(farm)
    log = farm.logs / "0-producer.log"
    refused = "broker away, batch"
    with own.valkey.client as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            before = log.read_text().count(refused)
            waiting = submit(farm)
            wait_until(lambda: log.read_text().count(refused) > before, "the producer to be refused")
        finally:
            client.config_set("maxmemory", 0)
    assert_all_there(farm, job_id, waiting)
    assert_nothing_lost(farm)
    # None had to load its pipeline again.
    assert both_workers(farm) == workers


def test_the_brokers_memory_is_free_again_while_it_is_asked(own: Services) -> None:
    """A refusal is an error that the producer knows, whenever it comes; and the next message is taken."""
    door, refusals = Door(own.valkey.port), 0
    settings = Settings(broker_url=f"redis://127.0.0.1:{door.port}/0")
    app = make_celery(settings)

    def look(data: bytes) -> None:
        nonlocal refusals
        if b"SADD" in data and not refusals:
            client.config_set("maxmemory", 1)
        if b"OOM" in data:
            client.config_set("maxmemory", 0)
            refusals += 1

    with own.valkey.client as client:
        client.config_set("maxmemory-policy", "noeviction")
        door.look = look
        with pytest.raises(OperationalError, match="OOM|not allowed"):
            ring(app, "later", Stage.BASE, 1, 1, refined=True, priority=BULK_MESSAGES[0])
        ring(app, "later", Stage.BASE, 2, 1, refined=True, priority=BULK_MESSAGES[0])
        assert refusals == 1
        assert waiting_messages(app, queue_name("later", Stage.BASE), interactive=False) == 1
    app.close()
    door.shut()


def test_messages_come_twice_in_another_order_and_for_nobody(farm: RunningFarm) -> None:
    job_id = submit(farm, 24, **SLOW | {"steps": 10})
    app = make_celery(farm.settings)
    # For batches that are not there, an attempt that never was, and one that is the past.
    for batch_id, attempt in ((10**12, 1), (1, 99), (1, 0)):
        ring(app, "tiny", Stage.BASE, batch_id, attempt, refined=True, priority=BULK_MESSAGES[0])
    for _ in range(8):
        for stage in Stage:
            for batch_id, attempt in reversed(attempts_of(farm, job_id)):
                ring(app, "tiny", stage, batch_id, attempt, refined=True, priority=BULK_MESSAGES[0])
    app.close()
    assert_all_there(farm, job_id)
    assert {*times_sent(farm, job_id).values()} == {1}
    assert_nothing_lost(farm)


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no JSON": lambda _message: "\x80\x04\x95",
    "endless nesting": lambda _message: "[" * 200_000,
    "headers of another kind": lambda message: message | {"headers": [1]},
    "no properties": lambda message: message | {"properties": None},
    "an end that is no time": lambda message: (
        message | {"headers": message["headers"] | {"expires": "soon", "eta": [1]}}
    ),
    "no message": lambda _message: [1, 2, 3],
    "pickle": lambda message: message | {"content-type": "application/x-python-serialize"},
    "another task": lambda message: message | {"headers": message["headers"] | {"task": "os.system"}},
    "other arguments": lambda message: message | {"body": encoded([["rm", "-rf /"], {}, {}])},
    "too many arguments": lambda message: message | {"body": encoded([[1, 1, 1], {"x": 1}, {}])},
    "a chain of its own": lambda message: message | {"body": encoded([[1, 1], {}, {"chain": [{"task": "os.system"}]}])},
    "no body": lambda message: message | {"body": "!"},
}


def encoded(body: Any) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_message_is_refused_and_nothing_else_happens(farm: RunningFarm, own: Services, kind: str) -> None:
    before = both_workers(farm)
    app = make_celery(farm.settings)
    # One that nobody takes shows what messages look like.
    ring(app, "nobody", Stage.BASE, 1, 1, refined=True, priority=BULK_MESSAGES[0])
    app.close()
    with own.valkey.client as client:
        _, ours = client.blpop(f"{queue_name('nobody', Stage.BASE)}\x06\x16{BULK_MESSAGES[0]}", 10)
        hostile = HOSTILE[kind](json.loads(ours))
        name = f"{queue_name('tiny', Stage.BASE)}\x06\x16{BULK_MESSAGES[0]}"
        client.lpush(name, hostile if isinstance(hostile, str) else json.dumps(hostile))
        wait_until(lambda: client.llen(name) == 0, "somebody to take it")
    assert_all_there(farm, submit(farm, 6))
    assert both_workers(farm) == before, "a worker died of it"
    assert_nothing_lost(farm)


def attempts_of(farm: RunningFarm, job_id: int) -> list[tuple[int, int]]:
    engine = open_database(farm.settings)
    with engine.connect() as connection:
        rows = connection.execute(select(Batch.id, Batch.attempt).where(Batch.job_id == job_id)).all()
    engine.dispose()
    return [(row.id, row.attempt) for row in rows]


# -- the database ----------------------------------------------------------------------------------------------------


def test_the_database_is_away_for_a_while(farm: RunningFarm, own: Services) -> None:
    job_id = under_way(farm)
    cut(own.to_postgres)
    assert_all_there(farm, job_id, submit(farm))
    assert_nothing_lost(farm)


def test_all_connections_are_killed(farm: RunningFarm, own: Services) -> None:
    job_id = under_way(farm)
    ours = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    for _ in range(3):
        # They come back, and are killed again.
        wait_until(lambda: own.postgres.execute(f"SELECT pid {ours}"), "connections")
        own.postgres.execute(f"SELECT pg_terminate_backend(pid) {ours}")
    assert_all_there(farm, job_id)
    assert_nothing_lost(farm)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_database_is_restarted(farm: RunningFarm, own: Services, mode: str) -> None:
    job_id = under_way(farm)
    own.postgres.stop(mode)
    own.postgres.start(fsync="off")
    assert_all_there(farm, job_id, submit(farm))
    assert_nothing_lost(farm)


def test_a_deadlock_ends_a_transaction_of_the_farm(farm: RunningFarm, own: Services) -> None:
    job_id = under_way(farm, 60)
    before = deadlocks(own.postgres)
    # Whoever ends a batch has locked its job, and waits for the batch: perhaps behind another who waits for it first.
    waits_for = """
        WITH RECURSIVE waiting (pid) AS (
            SELECT {} UNION
            SELECT activity.pid FROM pg_stat_activity AS activity
            JOIN waiting ON waiting.pid = ANY(pg_blocking_pids(activity.pid))
        )
        SELECT pid FROM waiting JOIN pg_locks USING (pid)
        WHERE relation = 'jobs'::regclass AND mode = 'RowShareLock'
    """
    with psycopg.connect(own.postgres.url()) as connection, deadlock_timeout(own.postgres, "5s"):
        # Who has waited so long looks once for a deadlock, and ends: not this one.
        connection.execute("SET deadlock_timeout = '10min'")
        batches = "SELECT FROM batches WHERE job_id = %s AND state = 'running' FOR UPDATE"
        # Between one batch and the next none runs, and nothing would be locked.
        wait_until(lambda: connection.execute(batches, (job_id,)).fetchall(), "a batch that runs")
        ask = waits_for.format(connection.info.backend_pid)
        wait_until(lambda: own.postgres.execute(ask), "a worker that ends a batch")
        connection.execute("SELECT FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
    assert deadlocks(own.postgres) > before
    assert_all_there(farm, job_id)
    assert_nothing_lost(farm)


@contextmanager
def deadlock_timeout(postgres: Postgres, seconds: str) -> Iterator[None]:
    """The default of a second is too short for a machine with much else to do."""
    postgres.execute(f"ALTER SYSTEM SET deadlock_timeout = '{seconds}'")
    postgres.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        postgres.execute("ALTER SYSTEM RESET deadlock_timeout")
        postgres.execute("SELECT pg_reload_conf()")


def deadlocks(postgres: Postgres) -> int:
    return postgres.log.read_text().count("deadlock detected")


def test_another_server_takes_the_databases_place(farm: RunningFarm, own: Services) -> None:
    old, new = own.postgres, Postgres(own.postgres.directory.parent / "second")
    new.follow(old)
    new.start(fsync="off")
    # A commit is told only when both have it: this is what the promise depends on.
    old.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    old.execute("SELECT pg_reload_conf()")
    wait_until(lambda: old.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)], "the follower")
    job_id = under_way(farm)
    own.to_postgres.shut()
    old.stop("immediate")
    new.promote()
    new.execute("ALTER SYSTEM RESET synchronous_standby_names")
    new.execute("SELECT pg_reload_conf()")
    own.postgres = new
    own.to_postgres.open(new.port)
    assert_all_there(farm, job_id, submit(farm))
    assert_nothing_lost(farm)


# -- the store -------------------------------------------------------------------------------------------------------

TROUBLES = {
    "500 now and then": ("PUT", "images/", refuse("500 Internal Server Error", "InternalError"), 3),
    "slow down": ("PUT", "images/", refuse("503 Slow Down", "SlowDown"), 12),
    "no bucket for a while": ("PUT", "latents/", refuse("404 Not Found", "NoSuchBucket"), 3),
    "credentials that expired": ("PUT", "thumbnails/", refuse("403 Forbidden", "ExpiredToken"), 3),
    "late": ("GET", "latents/", late(1), 3),
    "silent": ("GET", "latents/", late(3), 2),
    "silent when written to": ("PUT", "images/", late(3), 2),
    "broken off": ("GET", "latents/", wrong(lambda data: data[: len(data) // 2], honest_length=False), 3),
    "other bytes": ("GET", "latents/", wrong(lambda data: data[:-1] + b"?"), 2),
    "short": ("GET", "latents/", wrong(lambda data: data[:-9]), 2),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_the_store_is_in_trouble(farm: RunningFarm, own: Services, kind: str) -> None:
    method, prefix, answer, times = TROUBLES[kind]
    before = own.store.seen
    own.store.troubles = [Trouble(method, prefix, answer, times)]
    assert_all_there(farm, submit(farm, 6))
    assert own.store.seen - before == times
    own.store.troubles = []
    assert_nothing_lost(farm)


def test_the_store_is_away_for_a_while(farm: RunningFarm, own: Services) -> None:
    job_id = under_way(farm)
    cut(own.to_store)
    assert_all_there(farm, job_id)
    assert_nothing_lost(farm)


# -- people, at the same time ----------------------------------------------------------------------------------------


def test_people_change_their_minds_while_it_is_rendered(farm: RunningFarm) -> None:
    jobs = [submit(farm, 12, steps=4) for _ in range(3)]
    stop = time.monotonic() + 8

    def change(job_id: int, actions: list[str]) -> None:
        while time.monotonic() < stop:
            for action in actions:
                # What has ended cannot be paused any more, and says so.
                with suppress(ConflictError):
                    getattr(farm.client.job(job_id), action)()

    moods = [["pause", "resume"], ["pause", "resume", "retry"], ["resume", "retry"]]
    people = [threading.Thread(target=change, args=mood) for mood in zip(jobs, moods, strict=True)]
    for one in people:
        one.start()
    cancelled = []
    while time.monotonic() < stop:
        # At every point of its way.
        cancelled.append(submit(farm, 6, steps=4, priority=80))
        time.sleep(0.15 * (len(cancelled) % 7))
        with suppress(ConflictError):
            farm.client.job(cancelled[-1]).cancel()
    for one in people:
        one.join()
    for job_id in jobs:
        with suppress(ConflictError):
            farm.client.job(job_id).resume()
    assert_all_there(farm, *jobs)
    for job_id in cancelled:
        job = farm.await_job(job_id)
        counts = job["images"]
        assert job["state"] in ("cancelled", "completed")
        assert counts["completed"] + counts["cancelled"] == counts["total"]
    assert_nothing_lost(farm)
