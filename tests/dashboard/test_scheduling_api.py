"""What people say of scheduling over the API: classes, deadlines, what a job waits for, shares of owners."""

from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient
from rows import job, pictures_of, start, submit
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from farm.models import Job
from farm.shares import OwnerShare, list_shares
from farm.transitions import finish_batch


def test_a_job_tells_what_its_scheduling_is(client: FlaskClient, engine: Engine) -> None:
    first = submit(engine, 1)
    deadline = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
    body = {
        "prompts": ["a"],
        "priority": "high",
        "after": first,
        "requires": "vram >= 24",
        "max_devices": 2,
        "deadline": deadline.isoformat(),
    }
    made = client.post("/api/v1/jobs", json=body)
    assert made.status_code == 201, made.text
    shown = client.get(f"/api/v1/jobs/{made.get_json()['id']}").get_json()
    assert {name: shown[name] for name in ("priority", "after", "requires", "max_devices")} == {
        "priority": 80,
        "after": first,
        "requires": "vram>=24",
        "max_devices": 2,
    }
    assert datetime.fromisoformat(shown["deadline"]) == deadline
    assert shown["forecast"] is None, "nothing was measured"
    page = client.get(f"/jobs/{shown['id']}").text
    assert "2030-01-02 03:04" in page
    assert f'when <a href="/jobs/{first}">job {first}</a> has ended' in page


def test_what_changes_and_what_is_taken_away(client: FlaskClient, engine: Engine) -> None:
    job_id = submit(engine, 1, max_devices=3, deadline="2030-01-01T00:00Z")
    path = f"/api/v1/jobs/{job_id}"
    assert client.patch(path, json={"priority": "low", "max_devices": None, "deadline": None}).status_code == 200
    changed = job(engine, job_id)
    assert (changed.priority, changed.max_devices, changed.deadline) == (25, None, None)
    for body, said in (
        ({"deadline": "soon"}, "deadline"),
        ({"max_devices": 0}, "max_devices"),
        ({}, "changes nothing"),
    ):
        refused = client.patch(path, json=body)
        assert refused.status_code == 422
        assert said in refused.text


@pytest.mark.parametrize(("minutes_to_deadline", "said"), [(30, "to spare"), (5, "late")])
def test_a_forecast_says_how_late_it_will_be(
    client: FlaskClient, engine: Engine, minutes_to_deadline: int, said: str
) -> None:
    deadline = datetime.now(UTC) + timedelta(minutes=minutes_to_deadline)
    job_id = submit(engine, 8, batch_size=4, refiner_split=None, deadline=deadline.isoformat())
    held = start(engine, job_id)
    assert finish_batch(engine, held, "w", pictures_of(held), 1)
    with Session(engine) as session:
        session.get_one(Job, job_id).started_at = datetime.now(UTC) - timedelta(minutes=10)
        session.commit()
    # Half is done after ten minutes, so the other half takes ten more.
    expected = client.get(f"/api/v1/jobs/{job_id}").get_json()["forecast"]
    assert expected["seconds_left"] == pytest.approx(600, abs=60)
    assert expected["seconds_late"] == pytest.approx(600 - 60 * minutes_to_deadline, abs=60)
    assert said in client.get(f"/jobs/{job_id}").text


def test_shares_are_set_and_taken_back(client: FlaskClient, engine: Engine) -> None:
    assert client.put("/api/v1/shares/ana", json={"weight": 3}).get_json() == {"owner": "ana", "weight": 3}
    assert client.put("/api/v1/shares/bob", json={"weight": 0.5}).status_code == 200
    assert list_shares(engine) == [OwnerShare("ana", 3), OwnerShare("bob", 0.5)]
    client.put("/api/v1/shares/ana", json={"weight": 1})
    assert client.get("/api/v1/shares").get_json() == {"shares": [{"owner": "bob", "weight": 0.5}]}
    assert client.put("/api/v1/shares/ana", json={"weight": 0}).status_code == 422


def test_what_no_worker_has_is_said(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w", stages=["base", "refiner"], tags=["site=lab", "vram=8"])
    submit(engine, 1, requires="vram>=24")
    submit(engine, 1, requires="site=lab")
    hints = {queue["name"]: queue["hints"] for queue in client.get("/api/v1/queues").get_json()["queues"]}
    said = "No worker has what jobs require: vram>=24. Start one that does, or cancel these jobs."
    assert hints["tiny.base"] == [said]
