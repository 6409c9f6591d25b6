"""The database refuses every change of state that is not in ``farm.states``, whoever asks for it."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from rows import batch, start, submit
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from farm.states import BATCH_TRANSITIONS, IMAGE_TRANSITIONS, JOB_TRANSITIONS, BatchState, ImageState, JobState

REFUSAL = "illegal change of"
#: What the CHECK constraints ask of a row in each state.
JOBS: Mapping[Any, str] = {
    JobState.QUEUED: "finished_at = NULL, images_completed = 0, images_failed = 0",
    JobState.RUNNING: "finished_at = NULL, images_completed = 0, images_failed = 0",
    JobState.COMPLETED: "finished_at = now(), images_completed = image_count, images_failed = 0",
    JobState.FAILED: "finished_at = now(), images_completed = 0, images_failed = image_count",
    JobState.CANCELLED: "finished_at = now(), images_completed = 0, images_failed = 0",
}
BATCHES: Mapping[Any, str] = {
    BatchState.READY: "queued_at = NULL, lease_until = NULL, finished_at = NULL",
    BatchState.QUEUED: "queued_at = now(), lease_until = NULL, finished_at = NULL",
    BatchState.RUNNING: "queued_at = NULL, lease_until = now(), worker_id = 'w', finished_at = NULL",
    BatchState.COMPLETED: "queued_at = NULL, lease_until = NULL, finished_at = now()",
    BatchState.FAILED: "queued_at = NULL, lease_until = NULL, finished_at = now()",
    BatchState.SPLIT: "queued_at = NULL, lease_until = NULL, finished_at = now()",
    BatchState.CANCELLED: "queued_at = NULL, lease_until = NULL, finished_at = now()",
}
NO_PICTURE = "image_key = NULL, thumbnail_key = NULL, sha256 = NULL, removed_at = NULL"
IMAGES: Mapping[Any, str] = {
    ImageState.PENDING: f"{NO_PICTURE}, error = NULL, finished_at = NULL",
    # Its picture was removed: only then may it be rendered anew.
    ImageState.COMPLETED: "image_key = NULL, thumbnail_key = NULL, sha256 = 'ab', removed_at = now(), error = NULL, "
    "finished_at = now()",
    ImageState.FAILED: f"{NO_PICTURE}, error = 'broken', finished_at = now()",
    ImageState.CANCELLED: f"{NO_PICTURE}, error = NULL, finished_at = now()",
}
KINDS = {
    "jobs": (JOBS, JOB_TRANSITIONS),
    "batches": (BATCHES, BATCH_TRANSITIONS),
    "images": (IMAGES, IMAGE_TRANSITIONS),
}


def put(engine: Engine, table: str, state: str, columns: str, *, guarded: bool) -> None:
    with engine.begin() as connection:
        if not guarded:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(f"UPDATE {table} SET state = '{state}', {columns}"))


@pytest.mark.parametrize("table", KINDS)
def test_each_change_is_allowed_or_refused_as_the_states_say(engine: Engine, table: str) -> None:
    submit(engine, 1)
    columns, transitions = KINDS[table]
    for old, new in product(columns, repeat=2):
        put(engine, table, old, columns[old], guarded=False)
        if new is old or new in transitions[old]:  # type: ignore[index]
            put(engine, table, new, columns[new], guarded=True)
        else:
            with pytest.raises(IntegrityError, match=REFUSAL) as refused:
                put(engine, table, new, columns[new], guarded=True)
            assert f'"{old}" to "{new}"' in str(refused.value)


def test_a_picture_that_is_there_is_not_rendered_anew(engine: Engine) -> None:
    submit(engine, 1)
    there = "image_key = 'i', thumbnail_key = 't', sha256 = 'ab', finished_at = now()"
    put(engine, "images", "completed", there, guarded=True)
    with pytest.raises(IntegrityError, match=REFUSAL):
        put(engine, "images", "pending", IMAGES[ImageState.PENDING], guarded=True)


def test_attempts_never_go_back(engine: Engine) -> None:
    held = start(engine, submit(engine, 1))
    with engine.begin() as connection, pytest.raises(IntegrityError, match="from 1 to 0"):
        connection.execute(text("UPDATE batches SET attempt = attempt - 1"))
    assert batch(engine, held.batch_id).attempt == 1
