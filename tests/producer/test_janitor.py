"""What is left of deleted jobs, and of keys that nobody can use any more, is removed."""

from datetime import timedelta

import pytest
from rows import image_states, keys_for, keys_of, pictures_of, start, submit
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from farm.claims import claim
from farm.control import cancel_job, delete_job
from farm.errors import ObjectMissingError, StoreError
from farm.keys import latents_key
from farm.models import Batch, DoomedObject, IdempotencyKey, Image, TokenDay
from farm.settings import Settings
from farm.states import Stage
from farm.storage import ObjectStore, open_store
from farm.transitions import FinishedPicture, finish_base, finish_batch
from producer import janitor
from producer.janitor import forget_old_keys, remove_doomed_objects


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, settings: Settings) -> ObjectStore:
    if request.param == "directory":
        return open_store(settings)
    endpoint, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
    at = {"store_url": f"s3://{bucket}/farm", "s3_endpoint_url": endpoint}
    return open_store(Settings(**settings.model_dump() | at))


def render(engine: Engine, store: ObjectStore, images: int, **fields: object) -> int:
    job_id = submit(engine, images, refiner_split=None, **fields)
    held = start(engine, job_id)
    pictures = [FinishedPicture(one.index, *keys_for(held, one.index), "ab") for one in held.images]
    for picture in pictures:
        for key in (picture.image_key, picture.thumbnail_key):
            store.put(key, b"picture", "image/png")
    finish_batch(engine, held, "w", pictures, 1)
    return job_id


def is_there(store: ObjectStore, key: str) -> bool:
    try:
        store.get(key)
    except ObjectMissingError:
        return False
    return True


def test_objects_of_a_deleted_job_are_removed_and_no_others(
    engine: Engine, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "OBJECTS_AT_ONCE", 3)
    kept, gone = render(engine, store, 2), render(engine, store, 2)
    of_gone, of_kept = ([key for n in range(2) for key in keys_of(engine, one, n)] for one in (gone, kept))
    assert delete_job(engine, gone)
    assert image_states(engine, gone) == []
    assert [remove_doomed_objects(engine, store) for _ in range(3)] == [3, 1, 0]
    assert not any(is_there(store, key) for key in of_gone)
    assert all(is_there(store, key) for key in of_kept)


def test_what_a_worker_may_still_write_is_removed_later(engine: Engine, settings: Settings) -> None:
    store = open_store(settings)
    job_id = submit(engine, 1, output_format="webp")
    held = start(engine, job_id)
    key = latents_key(job_id, held.batch_id, held.attempt)
    store.put(key, b"latents", "application/octet-stream")
    finish_base(engine, held.batch_id, held.attempt, key, "ab", 1)
    refined = claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", 30)
    assert refined is not None
    cancel_job(engine, job_id)
    assert delete_job(engine, job_id)
    assert remove_doomed_objects(engine, store) == 1
    assert not is_there(store, key)
    # Its worker does not know yet.
    late = keys_for(held, 0, "webp")
    for name in late:
        store.put(name, b"picture", "image/webp")
    assert remove_doomed_objects(engine, store) == 0
    with engine.begin() as connection:
        connection.execute(update(DoomedObject).values(not_before=func.now()))
    assert remove_doomed_objects(engine, store)
    assert not any(is_there(store, name) for name in late)


def test_objects_stay_doomed_while_the_store_is_away(engine: Engine, settings: Settings, s3_server: str) -> None:
    job_id = render(engine, open_store(settings), 1)
    delete_job(engine, job_id)
    away = Settings(**settings.model_dump() | {"store_url": "s3://no-such-bucket", "s3_endpoint_url": s3_server})
    with pytest.raises(StoreError):
        remove_doomed_objects(engine, open_store(away))
    assert remove_doomed_objects(engine, open_store(settings)) == 2


def test_jobs_that_have_not_ended_are_not_deleted(engine: Engine) -> None:
    job_id = submit(engine, 2)
    held = start(engine, job_id)
    assert not delete_job(engine, job_id)
    assert len(image_states(engine, job_id)) == 2
    cancel_job(engine, job_id)
    assert delete_job(engine, job_id)
    assert not delete_job(engine, job_id)
    # What its worker still writes is refused.
    assert not finish_batch(engine, held, "w", pictures_of(held), 1)
    with engine.connect() as connection:
        assert [connection.scalar(select(func.count()).select_from(table)) for table in (Batch, Image)] == [0, 0]


def test_old_keys_and_days_are_forgotten(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        for name, age in (("old", janitor.KEYS_KEPT), ("new", timedelta(0))):
            at = func.now() - age - timedelta(seconds=1)
            session.add(IdempotencyKey(owner="ana", key=name, request_sha256="", receipt={}, created_at=at))
    assert forget_old_keys(engine) == 1
    with engine.connect() as connection:
        assert connection.scalars(select(IdempotencyKey.key)).all() == ["new"]
        assert connection.scalars(select(TokenDay.day)).all() == []
