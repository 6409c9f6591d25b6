"""Retention over HTTP: policies, what they would remove, and what is told of pictures that are gone."""

import io
import json
import zipfile

from flask.testing import FlaskClient
from kept import let_pass, star, stored
from sqlalchemy import Engine

from farm import people
from farm.roles import Role
from producer.retention import follow_policies


def gone(engine: Engine, farm, images: int = 2, **fields: object) -> int:
    """A job of which only the first picture, a starred one, is there."""
    job_id = farm.complete(images, keep_days=1, **fields)
    star(engine, job_id, 0)
    let_pass(engine, job_id, days=1)
    assert [*follow_policies(engine)]
    return job_id


def test_administrators_set_policies_and_everybody_sees_them(client: FlaskClient, app, engine: Engine) -> None:
    answer = client.put("/api/v1/retention/policies/*", json={"keep_days": 90})
    assert answer.status_code == 200
    assert answer.get_json()["keep_starred"] is True
    client.put("/api/v1/retention/policies/ana", json={"max_bytes": 10**12, "keep_starred": False})
    policies = client.get("/api/v1/retention").get_json()["policies"]
    assert [(one["owner"], one["keep_days"], one["max_bytes"]) for one in policies] == [
        ("*", 90, None),
        ("ana", None, 10**12),
    ]
    assert client.get("/api/v1/retention/policies/ana").get_json()["keep_starred"] is False
    for body in ({"keep_days": 0}, {"keep_days": "9"}, {"max_bytes": -1}, {"days": 3}):
        assert client.put("/api/v1/retention/policies/ana", json=body).status_code == 422, body
    ana = app.test_client()
    who = people.add_user(engine, "ana", Role.OPERATOR)
    ana.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {people.make_token(engine, who.user_id, 't')}"
    assert ana.get("/api/v1/retention").status_code == 200
    assert ana.put("/api/v1/retention/policies/ana", json={}).status_code == 403
    assert ana.delete("/api/v1/retention/policies/ana").status_code == 403
    assert ana.post("/api/v1/retention/run", json={"dry_run": True}).status_code == 403
    assert client.delete("/api/v1/retention/policies/ana").status_code == 204
    assert client.delete("/api/v1/retention/policies/ana").status_code == 404
    assert client.get("/api/v1/retention/policies/ana").status_code == 404
    assert "set how long pictures of ana are kept" in client.get("/activity").text


def test_a_run_does_what_its_dry_run_tells(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = farm.complete(2, keep_days=1)
    let_pass(engine, job_id, days=1)
    told = client.post("/api/v1/retention/run", json={"dry_run": True}).get_json()
    assert (told["dry_run"], told["finished"]) == (True, True)
    (removal,) = told["removals"]
    assert (removal["reason"], removal["jobs"], removal["pictures"]) == ("job", 0, 2)
    assert stored(engine, job_id) == [0, 1]
    done = client.post("/api/v1/retention/run").get_json()
    assert done == {**told, "dry_run": False}
    assert stored(engine, job_id) == []
    assert client.post("/api/v1/retention/run").get_json()["removals"] == []


def test_a_job_says_how_long_it_is_kept_and_may_say_otherwise(client: FlaskClient, farm) -> None:
    job_id = farm.complete(keep_days=30, keep_starred=False)
    job = client.get(f"/api/v1/jobs/{job_id}").get_json()
    assert (job["keep_days"], job["keep_starred"]) == (30, False)
    # Also when it has ended.
    job = client.patch(f"/api/v1/jobs/{job_id}", json={"keep_days": 7, "name": "owls"}).get_json()
    assert (job["keep_days"], job["keep_starred"], job["name"]) == (7, False, "owls")
    job = client.patch(f"/api/v1/jobs/{job_id}", json={"keep_days": None, "keep_starred": None}).get_json()
    assert (job["keep_days"], job["keep_starred"]) == (None, None)
    for body in ({"keep_days": 0}, {"keep_days": 40_000}, {"keep_starred": "yes"}, {"kept": 1}):
        assert client.patch(f"/api/v1/jobs/{job_id}", json=body).status_code == 422, body
    refused = client.post("/api/v1/jobs", json={"prompts": ["a"], "keep_days": 0}).get_json(force=True)
    assert refused["errors"][0]["field"] == "keep_days"
    assert "changed how long it is kept" in client.get("/activity").text


def test_removed_pictures_are_said_to_be_removed(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = gone(engine, farm)
    job = client.get(f"/api/v1/jobs/{job_id}").get_json()
    assert (job["state"], job["images"]["completed"], job["images"]["removed"]) == ("completed", 2, 1)
    kept, removed = client.get(f"/api/v1/jobs/{job_id}/images").get_json()["images"]
    assert (kept["removed_at"], bool(kept["file_url"])) == (None, True)
    assert (removed["state"], removed["file_url"], removed["thumbnail_url"]) == ("completed", None, None)
    day = removed["removed_at"][:10]
    for kind in ("file", "thumbnail"):
        answer = client.get(f"/api/v1/jobs/{job_id}/images/1/{kind}")
        assert answer.status_code == 410
        detail = answer.get_json(force=True)["detail"]
        assert f"removed by retention on {day}" in detail
        assert f"farm retry {job_id} --removed" in detail
    assert client.get(f"/api/v1/jobs/{job_id}/images/0/file").status_code == 200


def test_pages_show_what_is_left(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = gone(engine, farm, 3)
    gallery = client.get(f"/jobs/{job_id}").text
    assert gallery.count('class="tile removed"') == 2
    assert "2 removed" in gallery
    page = client.get(f"/jobs/{job_id}/images/1").text
    assert "removed by retention on" in page
    assert "Submit again with changes" in page
    for address in ("/", "/pictures", f"/jobs/{job_id}/grid", f"/compare?pictures={job_id}:0,{job_id}:1"):
        assert client.get(address).status_code == 200, address
    sheet = client.get(f"/jobs/{job_id}/sheet.png")
    assert (sheet.status_code, sheet.mimetype) == (200, "image/png")


def test_an_archive_has_what_is_left_and_tells_of_the_rest(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = gone(engine, farm)
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/jobs/{job_id}/archive").data))
    assert sorted(archive.namelist()) == ["000000_seed7.png", "manifest.csv", "manifest.jsonl"]
    kept, removed = map(json.loads, archive.read("manifest.jsonl").splitlines())
    assert (kept["name"], kept["removed_at"]) == ("000000_seed7.png", None)
    assert (removed["name"], removed["prompt"]) == (None, "prompt 1")
    assert removed["removed_at"]


def test_removed_pictures_are_rendered_again(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = gone(engine, farm)
    assert client.post(f"/api/v1/jobs/{job_id}/retry").get_json()["retried"] == 0
    again = client.post(f"/api/v1/jobs/{job_id}/retry?removed=true").get_json()
    assert (again["retried"], again["state"], again["images"]["pending"]) == (1, "running", 1)
    farm.render(job_id, 1)
    assert client.get(f"/api/v1/jobs/{job_id}/images/1/file").status_code == 200
    assert client.get(f"/api/v1/jobs/{job_id}").get_json()["images"]["removed"] == 0
    assert "rendered again that had been removed" in client.get("/activity").text
