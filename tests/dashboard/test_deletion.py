"""Deleting jobs: over HTTP, from the list, from a job's page; and what is left of them."""

import pytest
from flask.testing import FlaskClient
from rows import keys_of
from sqlalchemy import func, update

from farm.control import cancel_job
from farm.errors import ObjectMissingError
from farm.models import DoomedObject
from producer.janitor import remove_doomed_objects


def test_a_job_is_deleted_with_its_pictures(client: FlaskClient, farm) -> None:
    kept, gone = farm.complete(name="owls"), farm.complete(name="foxes")
    (of_kept, _), (of_gone, _) = (keys_of(farm.engine, job_id, 0) for job_id in (kept, gone))
    assert client.delete(f"/api/v1/jobs/{gone}").status_code == 204
    for path in (
        "/api/v1/jobs/{}",
        "/api/v1/jobs/{}/images",
        "/api/v1/jobs/{}/images/0/file",
        "/jobs/{}",
        "/jobs/{}/images/0",
    ):
        assert client.get(path.format(gone)).status_code == 404, path
        assert client.get(path.format(kept)).status_code == 200, path
    assert client.delete(f"/api/v1/jobs/{gone}").status_code == 404
    assert "foxes" not in client.get("/").text
    with farm.engine.begin() as connection:
        connection.execute(update(DoomedObject).values(not_before=func.now()))
    remove_doomed_objects(farm.engine, farm.store)
    assert farm.store.get(of_kept)
    with pytest.raises(ObjectMissingError):
        farm.store.get(of_gone)
    assert "deleted the job “foxes”" in client.get("/activity").text


def test_a_job_that_has_not_ended_is_cancelled_first(client: FlaskClient, farm) -> None:
    job_id = farm.submit()
    refused = client.delete(f"/api/v1/jobs/{job_id}")
    assert refused.status_code == 409
    assert "Cancel it first" in refused.get_json()["detail"]
    cancel_job(farm.engine, job_id)
    assert client.delete(f"/api/v1/jobs/{job_id}").status_code == 204


def test_many_jobs_are_deleted_at_once(client: FlaskClient, farm) -> None:
    done, running = farm.complete(), farm.submit()
    body = {"action": "delete", "jobs": [done, running, 99]}
    outcomes = client.post("/api/v1/jobs/actions", json=body).get_json()["outcomes"]
    assert [one["done"] for one in outcomes] == [True, False, False]
    assert outcomes[1]["reason"] == "has not ended; cancel it first"


def test_the_pages_ask_before_they_delete(client: FlaskClient, farm) -> None:
    done, other, running = farm.complete(2, name="foxes"), farm.complete(), farm.submit(name="owls")
    assert f'href="/jobs/delete?job={done}"' in client.get(f"/jobs/{done}").text
    assert "/jobs/delete?job" not in client.get(f"/jobs/{running}").text
    assert 'formaction="/jobs/delete"' in client.get("/").text
    asked = client.get(f"/jobs/delete?job={done}&job={running}&job=x&job={'9' * 5000}").text
    assert "Delete this job?" in asked
    assert "2 pictures are deleted too" in asked
    assert "Cancel a job first" in asked
    assert f'name="job" value="{done}"' in asked
    assert f'value="{running}"' not in asked
    assert "3 pictures" in client.get(f"/jobs/delete?job={done}&job={other}").text
    assert "No job was chosen" in client.get("/jobs/delete").text
    told = client.post("/jobs/act", data={"action": "delete", "job": done, "from": "job"}, follow_redirects=True)
    assert f"Deleted: job {done}." in told.text
    assert client.get(f"/jobs/{done}").status_code == 404
