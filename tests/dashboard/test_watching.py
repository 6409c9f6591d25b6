"""Pages that stay live: streams of events, and the one stream of many that is too many."""

import json
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from flask.testing import FlaskClient

from dashboard import live
from dashboard.context import EXTENSION, context
from dashboard.live import Shared
from dashboard.pages.watching import look_at_job
from farm.control import pause_job


def events(answer) -> Iterator[tuple[str, str, str]]:
    """Name, id and data of each event, as they come."""
    for block in answer.iter_encoded():
        fields: dict[str, list[str]] = {}
        for line in block.decode().splitlines():
            name, _, value = line.partition(": ")
            fields.setdefault(name, []).append(value)
        if "event" in fields:
            yield fields["event"][0], "".join(fields.get("id", [])), "\n".join(fields.get("data", []))


def until(stream: Iterator[tuple[str, str, str]], name: str) -> str:
    """Data of the next event of this name."""
    return next(data for event, _, data in stream if event == name)


def test_a_job_tells_of_its_pictures_and_its_end(client: FlaskClient, farm) -> None:
    job_id = farm.submit(2)
    with client.get(f"/jobs/{job_id}/events", buffered=False) as answer:
        assert answer.mimetype == "text/event-stream"
        stream = events(answer)
        assert ">0</strong> of 2 pictures" in until(stream, "status")
        farm.render(job_id, 1)
        tiles = until(stream, "tiles")
        assert 'id="image-0" class="tile completed" hx-swap-oob="true"' in tiles
        assert "image-1" not in tiles
        farm.render(job_id, 1)
        rest = list(stream)
    assert [name for name, *_ in rest][-1] == "end"
    assert any("image-1" in data and "image-0" not in data for name, _, data in rest if name == "tiles")
    assert any("completed, 100 % done" in data for name, _, data in rest if name == "said")


def test_what_a_page_missed_is_told_when_it_comes_back(client: FlaskClient, farm) -> None:
    job_id = farm.submit(3)
    with client.get(f"/jobs/{job_id}/events", buffered=False) as answer:
        number = next(number for _, number, _ in events(answer) if number)
    farm.render(job_id, 2)
    with client.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": number}, buffered=False) as answer:
        tiles = until(events(answer), "tiles")
    assert "image-0" in tiles
    assert "image-1" in tiles


def test_other_buttons_are_announced(client: FlaskClient, farm) -> None:
    job_id = farm.submit(2)
    with client.get(f"/jobs/{job_id}/events", buffered=False) as answer:
        stream = events(answer)
        before = until(stream, "state")
        pause_job(farm.engine, job_id)
        assert until(stream, "state") != before
    assert "Resume" in client.get(f"/jobs/{job_id}/fragments/actions").text


def test_a_slow_stream_misses_no_picture(client: FlaskClient, farm, monkeypatch: pytest.MonkeyPatch) -> None:
    # Looks that others make in between: each finds one picture, and this stream sees only the last of them.
    monkeypatch.setattr(live, "INTERVAL_SECONDS", 0.0)
    job_id = farm.submit(3)
    shared = client.application.extensions[EXTENSION].shared
    with client.get(f"/jobs/{job_id}/events", buffered=False) as answer:
        stream = events(answer)
        until(stream, "state")
        for _ in range(2):
            farm.render(job_id, 1)
            with client.application.test_request_context():
                shared.get(("job", job_id), partial(look_at_job, context(), job_id), 0)
        farm.render(job_id, 1)
        told = "".join(data for name, _, data in stream if name == "tiles")
    assert all(f'id="image-{index}"' in told for index in range(3))


def test_the_list_tells_of_new_jobs(client: FlaskClient, farm) -> None:
    with client.get("/jobs/events", buffered=False) as answer:
        stream = events(answer)
        assert "No job yet" in until(stream, "status")
        farm.submit(name="Foxes")
        assert "Foxes" in until(stream, "status")


def test_stages_devices_and_failures_are_shown(client: FlaskClient, farm) -> None:
    farm.add_worker("host/cuda:1/1", device="cuda:1", hostname="render-7")
    job_id = farm.submit(4, refiner_split="0.8", batch_size=1)
    farm.start(job_id, worker_id="host/cuda:1/1")
    farm.fail(farm.start(job_id), "OutOfMemoryError: CUDA out of memory. Tried to allocate 12 GiB")
    farm.fail(farm.start(job_id), "OutOfMemoryError: CUDA out of memory. Tried to allocate 14 GiB")
    farm.fail(farm.start(job_id), "BrokenPictureError: The model gave NaN or infinity.")
    text = client.get(f"/jobs/{job_id}").text
    assert "base stage of job" in text
    assert "refiner stage of job" in text
    assert "cuda:1" in text
    assert "render-7" in text
    assert "The device ran out of memory" in text
    assert "vae_tiling" in text
    assert "The model gave NaN" in text
    assert "Retry 3 failed" in text


def test_unknown_jobs_and_strangers_get_no_stream(client: FlaskClient, stranger: FlaskClient) -> None:
    assert client.get("/jobs/99/events").status_code == 404
    assert stranger.get("/jobs/events").status_code == 303


def test_one_stream_too_many_is_refused_and_places_come_back(
    client: FlaskClient, farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_places", threading.BoundedSemaphore(1))
    job_id = farm.submit()
    with client.get(f"/jobs/{job_id}/events", buffered=False) as answer:
        next(events(answer))
        refused = client.get("/jobs/events")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
    with client.get("/jobs/events", buffered=False) as answer:
        assert until(events(answer), "status")


def test_shared_values_are_computed_once_and_forgotten() -> None:
    shared = Shared()
    calls: list[int | None] = []

    def compute(before: int | None) -> int:
        calls.append(before)
        return 5

    threads = [threading.Thread(target=shared.get, args=("key", compute, 60)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [None]
    shared.get("key", compute, 0)
    assert calls == [None, 5]


def test_many_jobs_are_steered_at_once(client: FlaskClient, farm) -> None:
    jobs = [farm.submit(2), farm.submit(2), farm.complete()]
    answer = client.post("/jobs/act", data={"action": "pause", "job": jobs}, follow_redirects=True)
    assert f"Paused: jobs {jobs[0]}, {jobs[1]}." in answer.text
    assert f"job {jobs[2]}: had ended already." in answer.text
    assert answer.text.count("badge paused") == 2
    body = {"action": "priority", "jobs": [*jobs, 77], "priority": 80}
    outcomes = client.post("/api/v1/jobs/actions", json=body).get_json()["outcomes"]
    assert [outcome["done"] for outcome in outcomes] == [True, True, False, False]
    assert outcomes[3]["reason"] == "there is none"
    assert client.get(f"/api/v1/jobs/{jobs[0]}").get_json()["priority"] == 80
    client.post("/jobs/act", data={"action": "cancel", "job": jobs[:2]})
    assert {job["state"] for job in client.get("/api/v1/jobs").get_json()["jobs"]} == {"cancelled", "completed"}
    assert json.loads(client.get(f"/api/v1/jobs/{jobs[0]}").text)["priority"] == 80


@pytest.mark.parametrize(
    "body",
    [{"action": "paint"}, {"action": "pause"}, {"action": "pause", "jobs": ["1"]}, {"action": "priority", "jobs": []}],
)
def test_actions_that_cannot_be_are_refused(client: FlaskClient, body: dict) -> None:
    assert client.post("/api/v1/jobs/actions", json=body).status_code == 422


def test_names_and_priorities_change_on_the_page(client: FlaskClient, farm) -> None:
    job_id = farm.submit()
    client.post(f"/jobs/{job_id}/name", data={"name": "  Owls  "})
    click = {"action": "priority", "job": job_id, "from": "job", "priority": "99"}
    text = client.post("/jobs/act", data=click, follow_redirects=True).text
    assert "Owls" in text
    assert f"Priority 99: job {job_id}." in text
    assert client.post("/jobs/act", data={**click, "priority": "101"}).status_code == 422
    assert client.post(f"/jobs/{job_id}/name", data={"name": " "}).status_code == 422


def test_the_list_is_filtered(client: FlaskClient, farm) -> None:
    farm.submit(name="red foxes")
    farm.complete(name="grey owls")
    assert "red foxes" in client.get("/?words=FOX").text
    assert "grey owls" not in client.get("/?words=FOX").text
    assert "red foxes" not in client.get("/?state=completed").text
    assert "No job matches" in client.get("/?words=100%25").text
    assert client.get("/?state=asleep").status_code == 422
