"""Marks over HTTP and by form: who may, what is written, what is refused; and what is found by them."""

import json

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, select

from farm import people
from farm.models import Activity
from farm.roles import Role


def image(client: FlaskClient, job_id: int, index: int = 0) -> dict:
    return client.get(f"/api/v1/jobs/{job_id}/images/{index}").get_json()


def indices(client: FlaskClient, job_id: int, query: str) -> list[int]:
    return [one["index"] for one in client.get(f"/api/v1/jobs/{job_id}/images?{query}").get_json()["images"]]


def test_one_image(client: FlaskClient, farm) -> None:
    job_id = farm.submit(2)
    assert (image(client, job_id)["rating"], image(client, job_id)["tags"]) == (0, [])
    answer = client.patch(f"/api/v1/jobs/{job_id}/images/0", json={"rating": 1, "tags": ["b", " a  a "]})
    assert (answer.status_code, answer.get_json()["rating"], answer.get_json()["tags"]) == (200, 1, ["a a", "b"])
    assert image(client, job_id, 1)["rating"] == 0
    assert client.patch(f"/api/v1/jobs/{job_id}/images/2", json={"rating": 1}).status_code == 404
    assert client.patch(f"/api/v1/jobs/{2**62}/images/{2**62}", json={"rating": 1}).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ([], "body"),
        ({"rating": 5}, "rating"),
        ({"rating": None}, "rating"),
        ({"rating": 0.5}, "rating"),
        ({"rating": True}, "rating"),
        ({"tags": "a"}, "tags"),
        ({"tags": ["x" * 51]}, "tags"),
        ({"tags": [f"{number}" for number in range(21)]}, "tags"),
        ({"tags": ["a\ud800"]}, "tags"),
        ({"stars": 1}, "stars"),
        ({"images": [0], "rating": 1}, "images"),
    ],
)
def test_impossible_marks_are_refused_with_field_and_remedy(
    client: FlaskClient, farm, body: object, field: str
) -> None:
    answer = client.patch(
        f"/api/v1/jobs/{farm.submit()}/images/0", data=json.dumps(body), content_type="application/json"
    )
    assert answer.status_code == 422
    assert answer.get_json(force=True)["errors"][0]["field"] == field


def test_many_images_by_number_and_by_filter(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = farm.submit(["a fox", "an owl", "a red fox", "an elk"])
    marks = f"/api/v1/jobs/{job_id}/marks"
    assert client.post(marks, json={"images": "1-2", "rating": -1}).get_json() == {"marked": 2}
    assert client.post(marks, json={"images": [3], "add_tags": ["x"]}).get_json() == {"marked": 1}
    assert client.post(marks, json={"images": [], "rating": 1}).get_json() == {"marked": 0}
    both = {"filter": {"q": "fox", "mark": "rejected"}, "add_tags": ["red", "fox"], "rating": 1}
    assert client.post(marks, json=both).get_json() == {"marked": 1}
    assert client.post(marks, json={"filter": {}, "remove_tags": ["fox"]}).get_json() == {"marked": 4}
    assert (image(client, job_id, 2)["rating"], image(client, job_id, 2)["tags"]) == (1, ["red"])
    with engine.connect() as connection:
        noted = connection.scalars(select(Activity.action).where(Activity.job_id == job_id)).all()
    assert noted.count("images.mark") == 5


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rating": 1}, "images"),
        ({"images": "x", "rating": 1}, "images"),
        ({"images": {"0": 1}, "rating": 1}, "images"),
        ({"images": [True], "rating": 1}, "images"),
        ({"images": [-1], "rating": 1}, "images"),
        ({"images": [2**40], "rating": 1}, "images"),
        ({"filter": [], "rating": 1}, "filter"),
        ({"filter": {"owner": "x"}, "rating": 1}, "filter"),
        ({"filter": {"seed": []}, "rating": 1}, "seed"),
        ({"images": [0]}, "body"),
    ],
)
def test_impossible_choices_are_refused(client: FlaskClient, farm, body: object, field: str) -> None:
    answer = client.post(f"/api/v1/jobs/{farm.submit()}/marks", json=body)
    assert answer.status_code == 422
    assert answer.get_json(force=True)["errors"][0]["field"] == field


def test_twenty_tags_are_the_most(client: FlaskClient, farm) -> None:
    job_id = farm.submit(2)
    client.patch(f"/api/v1/jobs/{job_id}/images/1", json={"tags": [f"t{number}" for number in range(20)]})
    answer = client.post(f"/api/v1/jobs/{job_id}/marks", json={"filter": {}, "add_tags": ["more"]})
    assert answer.status_code == 422
    assert "more than 20" in answer.get_json(force=True)["detail"]
    assert image(client, job_id, 0)["tags"] == []


def test_viewers_look_and_submitters_mark(app, farm, engine: Engine) -> None:
    job_id = farm.complete(1)
    for role, status in ((Role.VIEWER, 403), (Role.SUBMITTER, 200)):
        name = f"a-{role}"
        user_id = people.add_user(engine, name, role).user_id
        browser = app.test_client()
        browser.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {people.make_token(engine, user_id, 'tests')}"
        assert browser.patch(f"/api/v1/jobs/{job_id}/images/0", json={"rating": 1}).status_code == status
        assert browser.post(f"/api/v1/jobs/{job_id}/marks", json={"images": [0], "rating": 1}).status_code == status
        # Whoever may look may take along.
        assert browser.post(f"/api/v1/jobs/{job_id}/archive", json={"images": [0]}).status_code == 200
        page = browser.get(f"/jobs/{job_id}").text
        assert ("Add tags" in page) == (role is Role.SUBMITTER)
        assert "Download ZIP" in page
        viewer = browser.get(f"/jobs/{job_id}/images/0").text
        assert ("Save tags" in viewer) == (role is Role.SUBMITTER)


def test_forms_mark_without_javascript_and_go_back(client: FlaskClient, farm) -> None:
    job_id = farm.submit(3)
    form = {"picture": [f"{job_id}:0", f"{job_id}:2"], "q": "prompt", "after": "1", "do": "1", "tags": ""}
    answer = client.post(f"/jobs/{job_id}/marks", data=form)
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/jobs/{job_id}?after=1&q=prompt"
    assert indices(client, job_id, "mark=starred") == [0, 2]
    client.post(f"/jobs/{job_id}/marks", data={"picture": f"{job_id}:1", "do": "add_tags", "tags": "b, a"})
    assert image(client, job_id, 1)["tags"] == ["a", "b"]
    back = client.post(
        f"/jobs/{job_id}/marks", data={"picture": f"{job_id}:1", "do": "set_tags", "tags": "", "view": "1"}
    )
    assert back.headers["Location"] == f"/jobs/{job_id}/images/1"
    assert image(client, job_id, 1)["tags"] == []
    for refused in (
        {"do": "1"},
        {"picture": f"{job_id}:0"},
        {"picture": f"{job_id + 1}:0", "do": "1"},
        {"picture": "x", "do": "1"},
    ):
        assert client.post(f"/jobs/{job_id}/marks", data=refused).status_code == 422
    client.post(f"/jobs/{job_id}/marks", data={"all": "1", "mark": "starred", "do": "0"})
    assert indices(client, job_id, "mark=starred") == []


def test_pictures_of_all_jobs_are_marked_together(client: FlaskClient, farm) -> None:
    first, second = farm.complete(2), farm.complete(2)
    answer = client.post("/pictures/marks", data={"pictures": f"{first}:1,{second}:0", "do": "-1", "before": "9:9"})
    assert answer.headers["Location"] == "/pictures?before=9:9"
    assert [image(client, first, 1)["rating"], image(client, second, 0)["rating"]] == [-1, -1]
    assert indices(client, first, "mark=unmarked") == [0]


def test_images_are_found_within_a_job(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["a red fox", "an owl =cmd <b>", "a red owl", "Füchse im Schnee"], seed=10)
    farm.render(job_id, 2)
    client.patch(f"/api/v1/jobs/{job_id}/images/1", json={"tags": ["for <b>"]})
    for query, expected in (
        ("state=completed", [0, 1]),
        ("state=pending&q=red", [2]),
        ("q=red", [0, 2]),
        ("q=red+-fox", [2]),
        ("q=%22red+owl%22", [2]),
        ("q=f%C3%BCchse", [3]),
        ("q=!!!", []),
        ("q=fox+or+owl&limit=2", [0, 1]),
        ("seed=12", [2]),
        ("tag=for+%3Cb%3E", [1]),
        ("images=1-2&state=completed", [1]),
        ("mark=&q=&seed=&state=&tag=", [0, 1, 2, 3]),
    ):
        assert indices(client, job_id, query) == expected, query


def test_images_are_found_over_all_jobs_the_newest_first(client: FlaskClient, farm) -> None:
    jobs = [farm.complete(3), farm.complete(3)]
    seen: list[tuple[int, int]] = []
    before = None
    while True:
        query = {"limit": "2", "state": "completed"} | ({"before": before} if before else {})
        answer = client.get("/api/v1/images", query_string=query).get_json()
        seen += [(one["job_id"], one["index"]) for one in answer["images"]]
        before = answer["next"]
        if before is None:
            break
    assert seen == [(job_id, index) for job_id in reversed(jobs) for index in (2, 1, 0)]
    for state in ("pending", "cancelled", "failed"):
        assert client.get(f"/api/v1/images?state={state}").get_json()["images"] == []
    client.patch(f"/api/v1/jobs/{jobs[0]}/images/1", json={"rating": 1})
    (found,) = client.get("/api/v1/images?mark=starred").get_json()["images"]
    assert (found["job_id"], found["index"]) == (jobs[0], 1)
    for query in ("before=1", "before=a:b", "before=1:2:3", "q=" + "x" * 501):
        assert client.get(f"/api/v1/images?{query}").status_code == 422
