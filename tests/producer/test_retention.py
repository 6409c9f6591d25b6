"""What was kept as long as it was to be goes, nothing else, and never without a trace."""

from datetime import timedelta
from io import BytesIO

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept import PICTURE, count, is_there, let_pass, render, render_batch, star, stored, submit
from PIL import Image as Pillow
from rows import job, keys_of, start
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from farm.control import change_job, delete_job
from farm.errors import InvalidSubmissionError, NotFoundError, StoreError
from farm.keys import input_key
from farm.models import Activity, DoomedObject, Image, Input, Job, JobInput, Preset
from farm.removal import render_removed
from farm.retention import EVERYBODY, Policy, Reason, list_policies, remove_policy, set_policy
from farm.settings import Settings
from farm.states import JobState
from farm.storage import ObjectStore, open_store
from producer import retention
from producer.inputs import accept_input
from producer.janitor import remove_doomed_objects
from producer.retention import Removal, Rounds, Stored, added_up, beyond, follow_policies, plan

SIZE = len(PICTURE)


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings)


@pytest.fixture(params=["directory", "s3"])
def any_store(request: pytest.FixtureRequest, settings: Settings) -> ObjectStore:
    if request.param == "directory":
        return open_store(settings)
    endpoint, bucket = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
    at = {"store_url": f"s3://{bucket}/farm", "s3_endpoint_url": endpoint}
    return open_store(Settings(**settings.model_dump() | at))


def run(engine: Engine) -> list[Removal]:
    """Do what was planned: it is what was told before."""
    planned = plan(engine)
    done = added_up(follow_policies(engine))
    assert done == planned
    assert plan(engine) == []
    return done


def test_without_a_policy_all_is_kept(engine: Engine, store: ObjectStore) -> None:
    old = render(engine, store, 2)
    let_pass(engine, old, days=10_000)
    assert run(engine) == []
    assert stored(engine, old) == [0, 1]


def test_what_a_job_says_goes_before_its_owners_policy_and_that_before_everybodys(
    engine: Engine, any_store: ObjectStore
) -> None:
    set_policy(engine, EVERYBODY, Policy(keep_days=10))
    set_policy(engine, "ana", Policy(keep_days=20))
    set_policy(engine, "eve", Policy())
    said = {
        "job": render(engine, any_store, 2, "ana", keep_days=5),
        "owner": render(engine, any_store, 2, "ana"),
        "everybody": render(engine, any_store, 2, "bob"),
        "for ever": render(engine, any_store, 2, "eve"),
    }
    written = {job_id: keys_of(engine, job_id, 1) for job_id in said.values()}
    for job_id in said.values():
        let_pass(engine, job_id, days=5.5)
    assert run(engine) == [Removal("ana", Reason.JOB, pictures=2, bytes=2 * SIZE)]
    for job_id in said.values():
        let_pass(engine, job_id, days=4)
    assert run(engine) == []
    for job_id in said.values():
        let_pass(engine, job_id, days=1)
    # Twice as long as its pictures the job itself was kept.
    assert run(engine) == [
        Removal("ana", Reason.JOB, jobs=1),
        Removal("bob", Reason.EVERYBODY, pictures=2, bytes=2 * SIZE),
    ]
    assert [stored(engine, job_id) for job_id in said.values()] == [[], [0, 1], [], [0, 1]]
    while remove_doomed_objects(engine, any_store):
        pass
    for name, job_id in said.items():
        for key in written[job_id]:
            assert is_there(any_store, key) == (name in ("owner", "for ever")), key
    assert job(engine, said["everybody"]).images_removed == 2
    assert job(engine, said["everybody"]).picture_bytes == 0
    assert job(engine, said["owner"]).picture_bytes == 2 * SIZE


def test_starred_pictures_stay_unless_it_is_said_otherwise(engine: Engine, store: ObjectStore) -> None:
    kept = render(engine, store, 3, keep_days=1)
    gone = render(engine, store, 3, keep_days=1, keep_starred=False)
    for job_id in (kept, gone):
        star(engine, job_id, 1)
        let_pass(engine, job_id, days=50)
    assert run(engine) == [Removal("ana", Reason.JOB, jobs=1, pictures=5, bytes=5 * SIZE)]
    assert stored(engine, kept) == [1]
    with engine.connect() as connection:
        assert connection.scalars(select(Job.id)).all() == [kept]
    # Without its star it goes, and the job with it.
    with engine.begin() as connection:
        connection.execute(update(Image).values(rating=0))
    assert run(engine) == [Removal("ana", Reason.JOB, jobs=1, pictures=1, bytes=SIZE)]
    assert [count(engine, table) for table in (Job, Image)] == [0, 0]


def test_a_removed_picture_leaves_its_row_with_what_it_was_made_from(engine: Engine, store: ObjectStore) -> None:
    job_id = render(engine, store, 1, keep_days=3)
    let_pass(engine, job_id, days=4)
    run(engine)
    with Session(engine) as session:
        image = session.get_one(Image, (job_id, 0))
        assert (image.prompt, image.seed, image.state) == ("prompt 0", 7, "completed")
        assert image.removed_at is not None
        assert image.sha256
        noted = session.scalars(select(Activity).where(Activity.action == "retention.remove")).one()
        assert (noted.actor, noted.job_id, noted.details) == ("retention", job_id, {"images": 1, "reason": "job"})


def test_the_oldest_pictures_beyond_an_owners_room_go_first(
    engine: Engine, any_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "IMAGES_AT_ONCE", 2)
    set_policy(engine, EVERYBODY, Policy(max_bytes=4 * SIZE))
    set_policy(engine, "eve", Policy())
    jobs = [render(engine, any_store, 3) for _ in range(3)]
    others = [render(engine, any_store, 6, "eve"), render(engine, any_store, 4, "bob")]
    star(engine, jobs[0], 2)
    for age, job_id in enumerate(reversed([*others, *jobs])):
        let_pass(engine, job_id, hours=2 + age)
    assert run(engine) == [Removal("ana", Reason.MAX_BYTES, pictures=5, bytes=5 * SIZE)]
    assert [stored(engine, job_id) for job_id in (*jobs, *others)] == [[2], [], [0, 1, 2], [*range(6)], [*range(4)]]
    # What has days too, and goes for these, leaves room for others.
    change_job(engine, jobs[2], keep={"keep_days": 1})
    set_policy(engine, EVERYBODY, Policy(max_bytes=SIZE))
    let_pass(engine, jobs[2], days=1)
    assert run(engine) == [
        Removal("ana", Reason.JOB, pictures=3, bytes=3 * SIZE),
        Removal("bob", Reason.MAX_BYTES, pictures=3, bytes=3 * SIZE),
    ]


def test_starred_pictures_go_last_for_room_and_only_if_they_may(engine: Engine, store: ObjectStore) -> None:
    job_id = render(engine, store, 4)
    star(engine, job_id, 0, 1)
    let_pass(engine, job_id, hours=2)
    set_policy(engine, "ana", Policy(max_bytes=SIZE))
    run(engine)
    assert stored(engine, job_id) == [0, 1]
    set_policy(engine, "ana", Policy(max_bytes=SIZE, keep_starred=False))
    run(engine)
    assert stored(engine, job_id) == [1]


def test_a_picture_that_was_just_made_stays_however_little_room_there_is(engine: Engine, store: ObjectStore) -> None:
    set_policy(engine, "ana", Policy(max_bytes=0))
    job_id = render(engine, store, 1)
    let_pass(engine, job_id, minutes=50)
    assert run(engine) == []
    let_pass(engine, job_id, minutes=20)
    assert run(engine) == [Removal("ana", Reason.MAX_BYTES, pictures=1, bytes=SIZE)]


def test_a_job_that_has_not_ended_is_never_touched(engine: Engine, store: ObjectStore) -> None:
    set_policy(engine, "ana", Policy(keep_days=1, max_bytes=0))
    job_id = submit(engine, 4, batch_size=2)
    render_batch(engine, store, job_id)
    with engine.begin() as connection:
        connection.execute(update(Job).values(created_at=Job.created_at - timedelta(days=99)))
        connection.execute(update(Image).values(finished_at=Image.finished_at - timedelta(days=99)))
    assert run(engine) == []
    assert stored(engine, job_id) == [0, 1]
    start(engine, job_id)
    assert run(engine) == []


def test_what_changes_between_plan_and_step_is_looked_at_again(engine: Engine, store: ObjectStore) -> None:
    """The list of jobs was made; before their turn one is given more days, one is starred, one is retried."""
    jobs = [render(engine, store, 1, keep_days=1) for _ in range(4)]
    for job_id in jobs:
        let_pass(engine, job_id, days=1.5)
    steps = follow_policies(engine)
    assert next(steps).pictures == 1
    change_job(engine, jobs[1], keep={"keep_days": 9})
    star(engine, jobs[2], 0)
    with engine.begin() as connection:
        connection.execute(update(Job).where(Job.id == jobs[3]).values(state=JobState.RUNNING, finished_at=None))
    assert [*steps] == []
    assert [stored(engine, job_id) for job_id in jobs] == [[], [0], [0], [0]]


def test_a_step_is_bounded_and_a_crash_after_it_loses_no_object(
    engine: Engine, any_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "IMAGES_AT_ONCE", 2)
    job_id = render(engine, any_store, 5, keep_days=1)
    pictures = [keys_of(engine, job_id, index)[0] for index in range(5)]
    let_pass(engine, job_id, days=9)
    steps = follow_policies(engine)
    assert next(steps) == Removal("ana", Reason.JOB, pictures=2, bytes=2 * SIZE)
    steps.close()
    # Nothing was removed from the store yet, and all of it is remembered.
    assert count(engine, DoomedObject) == 4
    assert is_there(any_store, pictures[0])
    # Another process goes on, and removes what this one left.
    assert sum(one.pictures for one in follow_policies(engine)) == 3
    assert remove_doomed_objects(engine, any_store) == 10
    assert not any(is_there(any_store, key) for key in pictures)


def test_a_transaction_that_is_cut_off_removes_nothing(engine: Engine, store: ObjectStore) -> None:
    job_id = render(engine, store, 2, keep_days=1)
    let_pass(engine, job_id, days=9)
    with engine.begin() as connection:
        # The connection dies when the job's count is written, after the objects were doomed.
        connection.execute(
            text(
                "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
            )
        )
        connection.execute(text("CREATE TRIGGER die BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION die()"))
    with pytest.raises(Exception, match="terminating connection") as caught:
        [*follow_policies(engine)]
    assert isinstance(caught.value.orig, psycopg.OperationalError)
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER die ON jobs"))
    assert count(engine, DoomedObject) == 0
    assert stored(engine, job_id) == [0, 1]
    assert run(engine)


def test_objects_stay_doomed_while_the_store_is_away(engine: Engine, settings: Settings, s3_server: str) -> None:
    store = open_store(settings)
    job_id = render(engine, store, 1, keep_days=1)
    let_pass(engine, job_id, days=1)
    run(engine)
    away = Settings(**settings.model_dump() | {"store_url": "s3://no-such-bucket", "s3_endpoint_url": s3_server})
    with pytest.raises(StoreError):
        remove_doomed_objects(engine, open_store(away))
    assert remove_doomed_objects(engine, store) == 2


def test_removed_pictures_are_rendered_again_and_their_objects_stay(engine: Engine, store: ObjectStore) -> None:
    job_id = render(engine, store, 3, keep_days=1)
    star(engine, job_id, 0)
    let_pass(engine, job_id, days=2)
    run(engine)
    assert render_removed(engine, job_id) == 2
    row = job(engine, job_id)
    assert (row.state, row.images_completed, row.images_removed) == (JobState.RUNNING, 1, 0)
    render_batch(engine, store, job_id)
    assert stored(engine, job_id) == [0, 1, 2]
    # The objects of before were doomed: those that were written anew are others.
    assert remove_doomed_objects(engine, store) == 4
    assert all(is_there(store, key) for index in range(3) for key in keys_of(engine, job_id, index))
    row = job(engine, job_id)
    assert (row.state, row.images_completed, row.picture_bytes) == (JobState.COMPLETED, 3, 3 * SIZE)
    assert render_removed(engine, job_id) == 0
    assert run(engine) == []


def png(colour: int) -> bytes:
    buffer = BytesIO()
    Pillow.new("RGB", (64, 64), (colour, 0, 0)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_inputs_that_no_job_names_go_after_a_week(engine: Engine, any_store: ObjectStore) -> None:
    names = ("named", "unnamed", "of a preset", "new")
    refs = {name: accept_input(engine, any_store, png(number)).ref for number, name in enumerate(names)}
    job_id = render(engine, any_store, 1, image=refs["named"], strength=0.5, keep_days=4)
    with engine.begin() as connection:
        connection.execute(update(Input).values(used_at=func.now() - timedelta(days=7, minutes=1)))
        connection.execute(
            update(Input).where(Input.sha256 == refs["new"][7:]).values(used_at=func.now() - timedelta(days=6))
        )
    with Session(engine) as session, session.begin():
        session.add(Preset(owner="ana", name="p", fields={"image": refs["of a preset"]}))
    size = len(png(1))
    assert run(engine) == [Removal("", Reason.UNUSED, inputs=1, bytes=size)]
    assert remove_doomed_objects(engine, any_store) == 0
    # It goes with the job that named it.
    let_pass(engine, job_id, days=8)
    assert run(engine) == [
        Removal("", Reason.UNUSED, inputs=1, bytes=len(png(0))),
        Removal("ana", Reason.JOB, jobs=1, pictures=1, bytes=SIZE),
    ]
    assert count(engine, JobInput) == 0
    with engine.begin() as connection:
        connection.execute(update(DoomedObject).values(not_before=func.now()))
    remove_doomed_objects(engine, any_store)
    there = [is_there(any_store, input_key(ref.removeprefix("sha256:"))) for ref in refs.values()]
    assert there == [False, False, True, True]


def test_an_input_that_is_uploaded_again_stays(engine: Engine, store: ObjectStore) -> None:
    ref = accept_input(engine, store, png(1)).ref
    with engine.begin() as connection:
        connection.execute(update(Input).values(used_at=func.now() - timedelta(days=8)))
    # Whoever asks for it uses it.
    assert accept_input(engine, store, png(1)).ref == ref
    assert run(engine) == []
    with engine.begin() as connection:
        connection.execute(update(Input).values(used_at=func.now() - timedelta(days=8)))
    run(engine)
    assert count(engine, DoomedObject) == 1
    assert accept_input(engine, store, png(1)).ref == ref
    assert count(engine, DoomedObject) == 0


def test_a_job_that_is_deleted_lets_go_of_its_inputs(engine: Engine, store: ObjectStore) -> None:
    ref = accept_input(engine, store, png(1)).ref
    job_id = render(engine, store, 1, image=ref, strength=0.5)
    assert count(engine, JobInput) == 1
    assert delete_job(engine, job_id)
    assert (count(engine, JobInput), count(engine, Input)) == (0, 1)


def test_rounds_take_a_step_at_a_time_and_begin_anew_later(
    engine: Engine, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "IMAGES_AT_ONCE", 2)
    job_id = render(engine, store, 3, keep_days=1)
    let_pass(engine, job_id, days=1)
    rounds = Rounds(engine)
    assert [rounds.step() for _ in range(4)] == [1, 1, 0, 0]
    assert stored(engine, job_id) == []
    other = render(engine, store, 1, keep_days=1)
    let_pass(engine, other, days=1)
    assert rounds.step() == 0
    monkeypatch.setattr(rounds, "_due", 0)
    assert [rounds.step(), rounds.step()] == [1, 0]


def test_policies_are_set_in_place_of_the_last_and_removed(engine: Engine) -> None:
    set_policy(engine, "ana", Policy(keep_days=9))
    set_policy(engine, EVERYBODY, Policy(max_bytes=1))
    set_policy(engine, "ana", Policy(max_bytes=5, keep_starred=False), by="root")
    found = [(one.owner, one.keep_days, one.keep_starred, one.max_bytes) for one in list_policies(engine)]
    assert found == [("*", None, True, 1), ("ana", None, False, 5)]
    remove_policy(engine, "ana")
    with pytest.raises(NotFoundError, match="farm retention show"):
        remove_policy(engine, "ana")
    with pytest.raises(NotFoundError, match="Nobody can be called so"):
        set_policy(engine, "", Policy())
    for policy in (Policy(keep_days=0), Policy(max_bytes=-1)):
        with pytest.raises(InvalidSubmissionError):
            set_policy(engine, "ana", policy)
    assert [one.owner for one in list_policies(engine)] == ["*"]


@given(st.lists(st.integers(0, 50)), st.integers(0, 500), st.integers(0, 500))
def test_no_more_pictures_go_than_must(sizes: list[int], others: int, limit: int) -> None:
    pictures = [Stored(1, image, size) for image, size in enumerate(sizes)]
    stored = sum(sizes) + others
    chosen = [*beyond(pictures, stored, limit)]
    left = stored - sum(one.size for one in chosen)
    assert chosen == pictures[: len(chosen)]
    assert left <= limit or chosen == pictures
    if chosen:
        assert left + chosen[-1].size > limit
