"""The auditor: silent about a farm in which nothing was lost, whatever it is doing; loud about everything else."""

import json
from datetime import timedelta
from typing import Any

import pytest
from kept import render, render_batch, stored, submit
from rows import keys_of, pictures_of, start
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from farm.claims import claim
from farm.cli import app
from farm.control import cancel_job, retry_failed
from farm.keys import image_key, input_key, latents_key
from farm.removal import render_removed
from farm.settings import Settings, get_settings
from farm.states import Stage
from farm.storage import ObjectStore, open_store
from farm.transitions import fail_attempt, finish_base, finish_batch
from producer import orphans
from producer.audit import Contradiction, Tally, audit, mark_broken
from producer.janitor import remove_doomed_objects


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


def found(engine: Engine, store: ObjectStore) -> list[Contradiction]:
    return [*audit(engine, store, Tally(), hashes=True)]


def tamper(engine: Engine, statement: str, **given: Any) -> None:
    """Change rows as nothing of ours would: without the database's own guard of states."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        assert connection.execute(text(statement), given).rowcount


def test_a_farm_in_every_state_contradicts_itself_in_nothing(engine: Engine, store: ObjectStore) -> None:
    submit(engine, 2)
    render(engine, store, 3)
    start(engine, submit(engine, 2))
    half = start(engine, submit(engine, 1, refiner_split=0.5))
    key = latents_key(half.job_id, half.batch_id, half.attempt)
    store.put(key, b"latents", "application/octet-stream")
    assert finish_base(engine, half.batch_id, half.attempt, key, "00", 1)
    split = start(engine, submit(engine, 2))
    fail_attempt(engine, split.batch_id, split.attempt, "broken", 1)
    failed = start(engine, submit(engine, 1))
    fail_attempt(engine, failed.batch_id, failed.attempt, "broken", 1)
    retried = start(engine, submit(engine, 1))
    fail_attempt(engine, retried.batch_id, retried.attempt, "broken", 1)
    assert retry_failed(engine, retried.job_id)
    cancelled = start(engine, submit(engine, 2, batch_size=1))
    cancel_job(engine, cancelled.job_id)
    assert not finish_batch(engine, cancelled, "w", pictures_of(cancelled), 1)
    tally = Tally()
    assert [*audit(engine, store, tally, hashes=True)] == []
    assert (tally.jobs, tally.images, tally.objects) == (8, 3, 6)


def test_pictures_that_are_damaged_or_gone_are_rendered_again(engine: Engine, store: ObjectStore) -> None:
    job_id = render(engine, store, 4)
    (gone, _), (other, _), (_, thumbnail) = (keys_of(engine, job_id, index) for index in range(3))
    store.delete(gone)
    store.put(other, store.get(other)[::-1], "image/png")
    store.delete(thumbnail)
    broken = found(engine, store)
    assert mark_broken(engine, broken) == 3
    assert found(engine, store) == []
    assert render_removed(engine, job_id) == 3
    # What is left of the damaged ones goes, and takes nothing of the new ones with it.
    render_batch(engine, store, job_id)
    while remove_doomed_objects(engine, store):
        pass
    assert stored(engine, job_id) == [0, 1, 2, 3]
    assert [*audit(engine, store, Tally(), hashes=True, young=timedelta(0))] == []
    # Of a job that is under way nothing is marked: it will tell when it has ended.
    under_way = submit(engine, 2, batch_size=1)
    render_batch(engine, store, under_way)
    store.delete(keys_of(engine, under_way, 0)[0])
    assert mark_broken(engine, found(engine, store)) == 0


BROKEN = {
    "counts": "UPDATE jobs SET images_completed = images_completed - 1, state = 'running', finished_at = NULL",
    "bytes": "UPDATE jobs SET picture_bytes = picture_bytes + 1",
    "order": 'UPDATE images SET "index" = 9 WHERE "index" = 2',
    "end of job": "UPDATE jobs SET state = 'running', finished_at = NULL",
    "pending image": "UPDATE images SET state = 'pending', image_key = NULL, thumbnail_key = NULL, sha256 = NULL, "
    'finished_at = NULL WHERE "index" = 1',
    "ended image": "UPDATE batches SET state = 'cancelled'",
    "batch of another job": "UPDATE batches SET job_id = 77",
    "empty batch": "INSERT INTO batches (job_id, parameters) SELECT id, '{}' FROM jobs",
    "lease": "UPDATE batches SET state = 'running', finished_at = NULL, worker_id = 'w', "
    "lease_until = now() - interval '1 hour'",
}


@pytest.mark.parametrize("rule", BROKEN)
def test_rows_that_contradict_each_other_are_found(engine: Engine, store: ObjectStore, rule: str) -> None:
    render(engine, store, 3)
    tamper(engine, BROKEN[rule])
    assert rule in {one.rule for one in found(engine, store)}


def test_what_is_not_in_the_store_as_it_was_written_is_found(engine: Engine, store: ObjectStore) -> None:
    job_id = render(engine, store, 5)
    (gone, _), (shorter, _), (other, _), (_, thumbnail) = (keys_of(engine, job_id, index) for index in range(4))
    store.delete(gone)
    store.put(shorter, b"short", "image/png")
    store.put(other, store.get(other)[::-1], "image/png")
    store.delete(thumbnail)
    told = found(engine, store)
    assert {one.rule for one in told} == {"picture"}
    assert [one.what for one in told] == [
        f"image 0: the store has no {gone}",
        f"image 1: {shorter} has 5 bytes in place of 25",
        f"image 3: the store has no {thumbnail}",
        f"image 2: {other} does not hold what was written",
    ]
    assert all("farm retry --removed" in one.remedy for one in told)
    # Without reading them it takes a picture of the right size for a good one.
    assert len([*audit(engine, store, Tally())]) == 3


def test_latents_and_inputs_that_are_waited_for_are_looked_for(engine: Engine, store: ObjectStore) -> None:
    held = start(engine, submit(engine, 1, refiner_split=0.5))
    assert finish_base(engine, held.batch_id, held.attempt, latents_key(held.job_id, held.batch_id, 1), "00", 1)
    digest = "ab" * 32
    with engine.begin() as connection:
        values = {"digest": digest, "job": held.job_id}
        connection.execute(text("INSERT INTO inputs VALUES (:digest, 8, 8, 9, 'image/png')"), values)
        connection.execute(text("INSERT INTO job_inputs VALUES (:job, :digest)"), values)
    told = found(engine, store)
    assert [(one.rule, one.job_id) for one in told] == [("latents", held.job_id), ("input", held.job_id)]
    assert input_key(digest) in told[1].what
    assert claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", 30) is not None
    fail_attempt(engine, held.batch_id, held.attempt, "latents are lost", 5, latents_lost=True)
    assert [one.rule for one in found(engine, store)] == ["input"]


def test_the_command_tells_and_fails(
    engine: Engine, settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "YOUNG", orphans.YOUNG * 0)
    job_id = render(engine, store, 2)
    for name, value in settings.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"FARM_{name.upper()}", str(value))
    get_settings.cache_clear()
    try:
        ran = CliRunner().invoke(app, ["audit", "--hashes"])
        assert (ran.exit_code, ran.stdout) == (0, "1 jobs, 2 pictures and 4 objects: nothing contradicts itself.\n")
        store.delete(keys_of(engine, job_id, 1)[0])
        stray = image_key(job_id, 1, 9, 9)
        store.put(stray, b"stray", "image/png")
        ran = CliRunner().invoke(app, ["audit", "--json"])
        assert ran.exit_code == 1
        told = json.loads(ran.stdout)
        assert [(one["rule"], one["job_id"]) for one in told["contradictions"]] == [
            ("picture", job_id),
            ("orphan", None),
        ]
        assert stray in told["contradictions"][1]["what"]
        assert told["marked"] == 0
    finally:
        get_settings.cache_clear()
