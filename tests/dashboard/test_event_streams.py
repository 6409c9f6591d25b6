"""Streams of events for programs: nothing twice, nothing lost, at once."""

import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from running import wait_until
from sqlalchemy import Engine, text

from dashboard import live
from dashboard.context import EXTENSION
from dashboard.news import News
from farm.control import cancel_job, delete_job, pause_job, resume_job
from farm.events import farm_events

Told = tuple[str, str, dict[str, Any]]


def events(answer) -> Iterator[Told]:
    """Kind, id and data of each event, as they come."""
    for block in answer.iter_encoded():
        fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if ": " in line)
        if "event" in fields:
            yield fields["event"], fields.get("id", ""), json.loads(fields.get("data", "{}"))


def stream(client: FlaskClient, path: str, **headers: str):
    return client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}, buffered=False)


def settled(engine: Engine, kind: str) -> None:
    """An event of this kind can be read: what other farms of the server are writing keeps back what is younger."""
    wait_until(lambda: kind in [one.kind for one in farm_events(engine, (0, 0), 100)], kind)


def without_progress(told: Iterator[Told]) -> list[Told]:
    return [event for event in told if event[0] != "progress"]


def test_a_job_is_told_of_from_its_beginning_to_its_end(client: FlaskClient, farm) -> None:
    job_id = farm.submit(2)
    with stream(client, f"/api/v1/jobs/{job_id}/events") as answer:
        assert answer.mimetype == "text/event-stream"
        told = events(answer)
        assert next(told)[::2] == (
            "job.submitted",
            {
                "kind": "job.submitted",
                "job_id": job_id,
                "url": f"/api/v1/jobs/{job_id}",
                "at": client.get(f"/api/v1/jobs/{job_id}").get_json()["created_at"],
            },
        )
        farm.render(job_id, 2)
        rest = without_progress(told)
    assert [(kind, data.get("index")) for kind, _, data in rest] == [
        ("job.started", None),
        ("image.completed", 0),
        ("image.completed", 1),
        ("job.completed", None),
        ("end", None),
    ]
    picture = rest[1][2]
    assert client.get(picture["url"]).get_json()["index"] == 0
    assert client.get(picture["file_url"]).mimetype == "image/png"
    assert client.get(picture["thumbnail_url"]).mimetype == "image/webp"
    # Who comes when it has ended is told all of it, and that there is no more.
    with stream(client, f"/api/v1/jobs/{job_id}/events") as answer:
        again = without_progress(events(answer))
    assert again[1:] == rest


def test_a_reader_that_comes_back_goes_on_where_it_was(client: FlaskClient, farm) -> None:
    job_id = farm.complete(3)
    with stream(client, f"/api/v1/jobs/{job_id}/events") as answer:
        everything = list(events(answer))
    for known in range(1, len(everything)):
        number = everything[known - 1][1]
        with stream(client, f"/api/v1/jobs/{job_id}/events?after=1", Last_Event_ID=number) as answer:
            assert list(events(answer)) == everything[known:]
        with stream(client, f"/api/v1/jobs/{job_id}/events?after={number}") as answer:
            assert list(events(answer)) == everything[known:]


def test_more_than_one_look_can_hold_is_told_in_order(
    client: FlaskClient, farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.api.events.EVENTS_AT_ONCE", 3)
    job_id = farm.complete(10)
    with stream(client, f"/api/v1/jobs/{job_id}/events") as answer:
        told = without_progress(events(answer))
    assert [data["index"] for kind, _, data in told if kind == "image.completed"] == list(range(10))
    assert [kind for kind, *_ in told[-2:]] == ["job.completed", "end"]


def test_streams_are_narrowed_to_kinds(client: FlaskClient, farm) -> None:
    job_id = farm.complete(2)
    with stream(client, f"/api/v1/jobs/{job_id}/events?kinds=image.completed,job.failed") as answer:
        assert [kind for kind, *_ in events(answer)] == ["image.completed", "image.completed", "end"]


def test_progress_is_told_without_an_id_and_only_when_it_changed(client: FlaskClient, farm) -> None:
    job_id = farm.submit(4)
    with stream(client, f"/api/v1/jobs/{job_id}/events?kinds=progress") as answer:
        told = events(answer)
        kind, number, data = next(told)
        assert (kind, number, data["progress"]) == ("progress", "", 0)
        assert data["images"] == {"total": 4, "completed": 0, "failed": 0, "cancelled": 0, "pending": 4, "removed": 0}
        farm.render(job_id, 1)
        _, _, data = next(told)
        assert (data["progress"], data["images"]["completed"]) == (0.25, 1)
        assert data["images_per_minute"] > 0
        cancel_job(farm.engine, job_id)
        assert [kind for kind, *_ in told] == ["end"]


@pytest.mark.parametrize(
    "path", ["/api/v1/events", "/api/v1/jobs/{}/events?kinds=job.submitted,job.paused,job.resumed"]
)
def test_events_are_told_at_once(client: FlaskClient, farm, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without news the test would wait until it is given up.
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 600.0)
    job_id = farm.submit()
    settled(farm.engine, "job.submitted")
    with stream(client, path.format(job_id)) as answer:
        told = events(answer)
        if path == "/api/v1/events":
            assert next(told)[0] == "begin"
        else:
            next(told)
        acting = threading.Thread(target=lambda: (pause_job(farm.engine, job_id), resume_job(farm.engine, job_id)))
        acting.start()
        assert [next(told)[0] for _ in range(2)] == ["job.paused", "job.resumed"]
        acting.join()


def test_the_farm_tells_of_all_jobs_from_now_on(client: FlaskClient, farm) -> None:
    farm.complete()
    settled(farm.engine, "job.completed")
    with stream(client, "/api/v1/events") as answer:
        told = events(answer)
        _, begin, _ = next(told)
        first, second = farm.submit(), farm.submit()
        seen = list(itertools.islice(told, 2))
        assert [(kind, data["job_id"]) for kind, _, data in seen] == [
            ("job.submitted", first),
            ("job.submitted", second),
        ]
    pause_job(farm.engine, first)
    # Also from before anything was told.
    with stream(client, "/api/v1/events", Last_Event_ID=begin) as answer:
        again = list(itertools.islice(events(answer), 3))
    assert again[:2] == seen
    with stream(client, "/api/v1/events", Last_Event_ID=seen[1][1]) as answer:
        assert next(events(answer)) == again[2]
    with stream(client, f"/api/v1/events?kinds=job.paused&after={begin}") as answer:
        assert next(events(answer)) == again[2]


def test_a_stream_of_a_deleted_job_ends(client: FlaskClient, farm) -> None:
    job_id = farm.submit()
    with stream(client, f"/api/v1/jobs/{job_id}/events") as answer:
        told = events(answer)
        next(told)
        cancel_job(farm.engine, job_id)
        delete_job(farm.engine, job_id)
        assert [kind for kind, *_ in told if kind != "progress"] == ["job.cancelled", "job.deleted", "end"]
    assert client.get(f"/api/v1/jobs/{job_id}/events").status_code == 404


@pytest.mark.parametrize(
    "query", ["?after=x", "?after=-1", "?after=1.2", "?kinds=job.eaten", "?kinds=webhook.test", "?after=" + "9" * 20]
)
def test_what_cannot_be_asked_is_refused(client: FlaskClient, farm, query: str) -> None:
    job_id = farm.submit()
    refused = client.get(f"/api/v1/jobs/{job_id}/events{query}")
    assert refused.status_code == 422
    assert refused.get_json()["errors"][0]["field"] in ("after", "kinds")
    if query != "?after=1.2":
        assert client.get(f"/api/v1/events{query}").status_code == 422
    with stream(client, f"/api/v1/jobs/{job_id}/events?after={2**63 - 1}&kinds=progress") as answer:
        assert next(events(answer))[0] == "progress"


# --- News: who waits is woken


@pytest.fixture
def news(client: FlaskClient) -> News:
    found: News = client.application.extensions[EXTENSION].news
    return found


def listeners(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(
            connection.scalars(
                text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
            )
        )


def test_who_waits_for_a_job_is_woken_by_it_and_by_no_other(news: News, farm) -> None:
    job_id, other = farm.submit(), farm.submit()
    with news.of(job_id) as waiter, news.of(None) as anything:
        wait_until(lambda: listeners(farm.engine), "the listener")
        wait_until(waiter.is_set, "its beginning, when what was told before is unknown")
        waiter.clear()
        anything.clear()
        pause_job(farm.engine, other)
        assert anything.wait(60)
        assert not waiter.is_set()
        pause_job(farm.engine, job_id)
        assert waiter.wait(60)
    assert len(listeners(farm.engine)) == 1


def test_waiting_ends_with_what_is_looked_for_or_when_it_is_no_use(news: News, farm) -> None:
    job_id = farm.submit()

    def paused() -> str | None:
        with farm.engine.connect() as connection:
            return connection.scalar(text("SELECT 'paused' FROM jobs WHERE paused_at IS NOT NULL"))

    pausing = threading.Timer(0, pause_job, (farm.engine, job_id))
    pausing.start()
    assert news.wait_until(job_id, paused, lambda: True) == "paused"
    pausing.join()
    assert news.wait_until(job_id, lambda: None, lambda: False) is None


def test_a_listener_whose_connection_broke_listens_again(news: News, farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.news.RECONNECT_SECONDS", 0.05)
    job_id = farm.submit()
    with news.of(job_id) as waiter:
        (first,) = wait_until(lambda: listeners(farm.engine), "the listener")
        wait_until(waiter.is_set, "its beginning")
        with farm.engine.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first})
        wait_until(lambda: [pid for pid in listeners(farm.engine) if pid != first], "another one")
        waiter.clear()
        pause_job(farm.engine, job_id)
        assert waiter.wait(60)
