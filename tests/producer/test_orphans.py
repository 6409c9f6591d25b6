"""What store and database do not both know."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from kept import PICTURE, is_there, render, stored, submit
from rows import keys_of, start
from sqlalchemy import Engine
from typer.testing import CliRunner

from farm.cli import app
from farm.control import delete_job
from farm.keys import compiled_key, image_key, input_key, latents_key, thumbnail_key
from farm.removal import render_removed
from farm.settings import Settings, get_settings
from farm.storage import DirectoryStore, ObjectStore, open_store
from farm.transitions import finish_base
from producer import orphans
from producer.janitor import remove_doomed_objects
from producer.orphans import MissingPictures, doom_orphans, find_missing, find_orphans, mark_removed

DIGEST = "ab" * 32


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    if request.param == "directory":
        return open_store(settings)
    # An object of this server cannot be made older.
    monkeypatch.setattr(orphans, "YOUNG", timedelta(0))
    endpoint, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
    at = {"store_url": f"s3://{bucket}/farm", "s3_endpoint_url": endpoint}
    return open_store(Settings(**settings.model_dump() | at))


def let_pass(store: ObjectStore, days: float) -> None:
    if isinstance(store, DirectoryStore):
        for file in filter(Path.is_file, store.root.rglob("*")):
            at = file.stat().st_mtime - days * 86400
            os.utime(file, (at, at))


def found(engine: Engine, store: ObjectStore) -> set[str]:
    return {one.key for some in find_orphans(engine, store) for one in some}


def test_objects_without_a_row_go_and_all_others_stay(engine: Engine, store: ObjectStore) -> None:
    finished = render(engine, store, 2)
    on_its_way = submit(engine, 1, refiner_split=0.5)
    held = start(engine, on_its_way)
    named, written = (latents_key(on_its_way, held.batch_id, attempt) for attempt in (held.attempt, 9))
    for key in (named, written, compiled_key("kind"), "somebody/else.txt"):
        store.put(key, b"data", "application/octet-stream")
    assert finish_base(engine, held.batch_id, held.attempt, named, "00", 1)
    assert found(engine, store) == set()

    lost = {
        image_key(finished, 7, 1, 1),
        image_key(finished, 1, 9, 1),
        image_key(77, 0, 1, 1),
        thumbnail_key(77, 0, 1, 1),
        latents_key(77, 9_999, 1),
        input_key(DIGEST),
    }
    for key in lost:
        store.put(key, PICTURE, "image/png")
    if isinstance(store, DirectoryStore):
        assert found(engine, store) == set(), "their rows may be about to come"
    let_pass(store, 1.1)
    some = [one for portion in find_orphans(engine, store) for one in portion]
    assert {one.key for one in some} == lost
    assert {one.size for one in some} == {len(PICTURE)}
    doom_orphans(engine, some)
    assert found(engine, store) == set(), "they are doomed"
    while remove_doomed_objects(engine, store):
        pass
    assert not any(is_there(store, key) for key in lost)
    assert all(is_there(store, key) for key in (named, *keys_of(engine, finished, 1), compiled_key("kind")))


def test_pictures_that_are_gone_are_named_and_can_be_rendered_again(engine: Engine, store: ObjectStore) -> None:
    whole, broken = render(engine, store, 2), render(engine, store, 3)
    assert [*find_missing(engine, store)] == []
    store.delete(keys_of(engine, broken, 1)[0])
    (missing,) = find_missing(engine, store)
    assert missing == MissingPictures(broken, (1,))
    assert mark_removed(engine, missing) == 1
    assert [*find_missing(engine, store)] == []
    assert stored(engine, broken) == [0, 2]
    assert render_removed(engine, broken) == 1
    assert stored(engine, whole) == [0, 1]


def test_the_command_tells_and_removes(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = open_store(settings)
    job_id = render(engine, store, 2)
    store.put(image_key(77, 0, 1, 1), PICTURE, "image/png")
    let_pass(store, 2)
    store.delete(keys_of(engine, job_id, 0)[0])
    for name, value in settings.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"FARM_{name.upper()}", str(value))
    get_settings.cache_clear()

    def run(*options: str) -> dict:
        ran = CliRunner().invoke(app, ["retention", "orphans", "--json", *options])
        assert ran.exit_code == 0, ran.output
        return json.loads(ran.stdout)

    told = {"objects": 1, "bytes": len(PICTURE), "missing": [{"job": job_id, "images": [0]}], "marked": 0}
    assert run("--dry-run") == {"dry_run": True, **told}
    assert run("--mend") == {"dry_run": False, **told, "marked": 1}
    assert run() == {"dry_run": False, "objects": 0, "bytes": 0, "missing": [], "marked": 0}
    delete_job(engine, job_id)
    get_settings.cache_clear()
