"""What is announced of a job, in the transactions that make it so."""

import threading
from datetime import timedelta

from rows import pictures_of, start, submit
from running import wait_until
from sqlalchemy import Engine, func, update

from farm.claims import claim
from farm.control import cancel_job, change_job, delete_job, pause_job, resume_job, retry_failed
from farm.events import (
    KEPT_DAYS,
    Announcement,
    Kind,
    announce,
    farm_events,
    forget_old_events,
    job_events,
    last_place,
)
from farm.models import Event
from farm.states import Stage
from farm.transitions import fail_attempt, finish_base, finish_batch, hand_back


def told(engine: Engine, job_id: int, after: int = 0) -> list[tuple[str, int | None]]:
    return [(one.kind, one.image_index) for one in job_events(engine, job_id, after, 100)]


def test_each_transition_is_told_once(engine: Engine) -> None:
    job_id = submit(engine, 3, batch_size=2)
    held = start(engine, job_id)
    assert finish_base(engine, held.batch_id, held.attempt, "latents", "00", 1)
    refined = claim(engine, held.batch_id, held.attempt, Stage.REFINER, "w", 30)
    assert refined is not None
    assert finish_batch(engine, refined, "w", pictures_of(refined), 1)
    assert not finish_batch(engine, refined, "late", pictures_of(refined), 1)
    pause_job(engine, job_id)
    resume_job(engine, job_id)
    change_job(engine, job_id, name="foxes", priority=90)
    last = start(engine, job_id)
    hand_back(engine, last.batch_id, last.attempt)
    last = start(engine, job_id)
    fail_attempt(engine, last.batch_id, last.attempt, "out of memory", max_failures=1)
    fail_attempt(engine, last.batch_id, last.attempt, "late", max_failures=1)
    assert retry_failed(engine, job_id) == 1
    assert cancel_job(engine, job_id)
    assert not cancel_job(engine, job_id)
    assert not pause_job(engine, job_id)
    assert delete_job(engine, job_id)
    assert not delete_job(engine, job_id)
    assert told(engine, job_id) == [
        ("job.submitted", None),
        ("job.started", None),
        ("image.completed", 0),
        ("image.completed", 1),
        ("job.paused", None),
        ("job.resumed", None),
        ("job.changed", None),
        ("job.changed", None),
        ("image.failed", 2),
        ("job.failed", None),
        ("job.retried", None),
        ("job.cancelled", None),
        ("job.deleted", None),
    ]
    details = {(one.kind, one.image_index): one.as_json() for one in job_events(engine, job_id, 0, 100)}
    assert details["image.completed", 0]["thumbnail_url"] == f"/api/v1/jobs/{job_id}/images/0/thumbnail"
    assert details["image.failed", 2]["details"] == {"error": "out of memory"}
    assert "file_url" not in details["image.failed", 2]
    assert details["job.retried", None]["details"] == {"images": 1}
    assert details["job.deleted", None]["details"] == {"name": "foxes"}


def test_a_completed_job_is_told_of_after_its_last_image(engine: Engine) -> None:
    job_id = submit(engine, 2, refiner_split=None)
    held = start(engine, job_id)
    finish_batch(engine, held, "w", pictures_of(held), 1)
    assert told(engine, job_id)[2:] == [("image.completed", 0), ("image.completed", 1), ("job.completed", None)]


def test_what_is_rolled_back_was_not_told(engine: Engine) -> None:
    job_id = submit(engine, 1)
    with engine.connect() as connection:
        announce(connection, job_id, Announcement(Kind.JOB_PAUSED))
        connection.rollback()
    assert told(engine, job_id) == [("job.submitted", None)]


def test_a_reader_of_a_job_goes_on_where_it_was(engine: Engine) -> None:
    job_id, _other = submit(engine, 1), submit(engine, 1)
    pause_job(engine, job_id)
    resume_job(engine, job_id)
    first, *_ = job_events(engine, job_id, 0, 1)
    assert told(engine, job_id, first.id) == [("job.paused", None), ("job.resumed", None)]
    narrowed = job_events(engine, job_id, 0, 100, [Kind.JOB_PAUSED, "job.completed"])
    assert [one.kind for one in narrowed] == ["job.paused"]


def test_a_reader_of_the_farm_misses_nothing_that_commits_late(engine: Engine) -> None:
    """An event with a smaller number may commit after one with a larger: readers must not be beyond it by then."""
    slow, quick = submit(engine, 1), submit(engine, 1)
    # What other farms of this server are writing keeps back what is younger.
    wait_until(lambda: len(farm_events(engine, (0, 0), 100)) == 2, "the submissions")
    begin = last_place(engine)
    with engine.begin() as late:
        announce(late, slow, Announcement(Kind.JOB_PAUSED))
        pause_job(engine, quick)
        assert farm_events(engine, begin, 100) == []
    seen = wait_until(lambda: found if len(found := farm_events(engine, begin, 100)) >= 2 else [], "both")
    assert [one.job_id for one in seen] == [slow, quick]
    assert farm_events(engine, (seen[0].transaction, seen[0].id), 100) == seen[1:]
    assert [one.job_id for one in farm_events(engine, begin, 1)] == [slow]
    resume_job(engine, quick)
    resumed = wait_until(lambda: farm_events(engine, begin, 100, ["job.resumed"]), "the last event")
    assert [one.kind for one in resumed] == ["job.resumed"]


def test_a_job_s_numbers_rise_whoever_writes_them(engine: Engine) -> None:
    job_id = submit(engine, 40, batch_size=1, refiner_split=None)
    held = [start(engine, job_id) for _ in range(40)]

    def finish(own: list) -> None:
        for one in own:
            finish_batch(engine, one, "w", pictures_of(one), 1)

    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.extend(job_events(engine, job_id, seen[-1].id if seen else 0, 7))

    threads: list[threading.Thread] = [threading.Thread(target=finish, args=(held[n::4],)) for n in range(4)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()
    seen.extend(job_events(engine, job_id, seen[-1].id if seen else 0, 100))
    assert [one.id for one in seen] == [one.id for one in job_events(engine, job_id, 0, 100)]
    assert sorted(one.image_index for one in seen if one.kind == "image.completed") == list(range(40))
    assert seen[-1].kind == "job.completed"


def test_old_events_are_forgotten(engine: Engine) -> None:
    old, new = submit(engine, 1), submit(engine, 1)
    with engine.begin() as connection:
        beyond = func.now() - timedelta(days=KEPT_DAYS, seconds=1)
        connection.execute(update(Event).where(Event.job_id == old).values(at=beyond))
    assert forget_old_events(engine) == 1
    assert told(engine, old) == []
    assert told(engine, new) == [("job.submitted", None)]
