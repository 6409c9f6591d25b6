"""The activity log, on its page, in the API and on a job's page."""

import re

from flask.testing import FlaskClient
from sqlalchemy import Engine

from dashboard.pages.activities import ACTIVITIES_PER_PAGE, CHOICES, WORDS
from farm.activity import note


def texts(page: str) -> list[str]:
    """What the log says, one text per entry."""
    items = re.findall(r"<li>\s*<span>(.*?)</span>\s*<time", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", "", item).split()) for item in items]


def page(client: FlaskClient, path: str = "/activity") -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


def test_what_people_do_is_told_in_words(client: FlaskClient, farm) -> None:
    me = client.get("/api/v1/me").get_json()["name"]
    job_id = client.post("/api/v1/jobs", json={"prompts": ["a fox"]}).get_json()["id"]
    client.patch(f"/api/v1/jobs/{job_id}", json={"name": "<b>foxes</b>", "priority": 70})
    client.post(f"/api/v1/jobs/{job_id}/pause")
    client.post(f"/api/v1/jobs/{job_id}/resume")
    client.post("/jobs/act", data={"action": "cancel", "job": job_id})
    client.put("/api/v1/word-lists/animal", data="fox\nowl")
    client.delete("/api/v1/word-lists/animal")
    assert texts(page(client)) == [
        f"{me} removed the word list “animal”",
        f"{me} saved the word list “animal” with 2 words",
        f"{me} cancelled the job Job {job_id}",
        f"{me} let the job go on Job {job_id}",
        f"{me} paused the job Job {job_id}",
        f"{me} gave it priority 70 Job {job_id}",
        f"{me} renamed it to “&lt;b&gt;foxes&lt;/b&gt;” Job {job_id}",
        f"{me} submitted 1 image Job {job_id}",
    ]
    told = texts(page(client, f"/jobs/{job_id}"))
    assert told[0] == f"{me} cancelled the job"
    assert len(told) == 5
    assert f'href="/activity?job={job_id}"' in page(client, f"/jobs/{job_id}")


def test_what_failed_to_be_done_is_not_told(client: FlaskClient, farm) -> None:
    job_id = farm.complete()
    assert client.post(f"/api/v1/jobs/{job_id}/cancel").status_code == 409
    assert client.delete("/api/v1/word-lists/none").status_code == 404
    assert not [text for text in texts(page(client)) if "cancelled" in text or "removed" in text]


def test_the_log_is_narrowed_to_one_actor_one_action_one_job(client: FlaskClient, engine: Engine) -> None:
    with engine.begin() as connection:
        note(connection, "ana", "job.pause", 1)
        note(connection, "ben", "job.pause", 2)
        note(connection, "ben", "job.cancel", 1)
        note(connection, "ben", "user.login")
    for query, expected in {
        "actor=ana": ["ana paused the job Job 1"],
        "actor=ben&action=job.pause": ["ben paused the job Job 2"],
        "job=1": ["ben cancelled the job Job 1", "ana paused the job Job 1"],
        "job=1&action=job.cancel": ["ben cancelled the job Job 1"],
        "actor=nobody": [],
        "actor=a%00b": [],
        "action=job.unheard-of": [],
        f"job={2**63 - 1}": [],
    }.items():
        assert texts(page(client, f"/activity?{query}")) == expected, query
        listed = client.get(f"/api/v1/activities?{query}").get_json()["activities"]
        assert len(listed) == len(expected), query
    # Fields that are left empty narrow nothing.
    assert len(texts(page(client, "/activity?actor=&action=&job="))) == 4
    assert client.get("/activity?job=x").status_code == 422
    assert client.get("/api/v1/activities?job=x").status_code == 422


def test_the_log_is_paged_by_key(client: FlaskClient, engine: Engine) -> None:
    count = ACTIVITIES_PER_PAGE + 7
    with engine.begin() as connection:
        for number in range(count):
            note(connection, "ana", "job.priority", 1, priority=number)
    first = page(client, "/activity?actor=ana")
    older = re.search(r'href="(/activity\?[^"]*before=\d+[^"]*)"', first)
    assert older is not None
    second = page(client, older[1].replace("&amp;", "&"))
    told = texts(first) + texts(second)
    assert told == [f"ana gave it priority {number} Job 1" for number in reversed(range(count))]
    assert ">Older<" not in second
    seen, before = [], ""
    while before is not None:
        body = client.get(f"/api/v1/activities?limit=10{before}").get_json()
        seen += [entry["details"]["priority"] for entry in body["activities"]]
        before = f"&before={body['next']}" if body["next"] else None
    assert seen == list(reversed(range(count)))


def test_what_has_no_words_yet_is_told_as_it_is(client: FlaskClient, engine: Engine) -> None:
    with engine.begin() as connection:
        note(connection, "", "worker.polish", worker="<w>", images=3)
        note(connection, "ana", "job.rename")
        note(connection, "ana", "job.rename", name="{name} " + "x" * 5_000)
    told = texts(page(client))
    assert told[2].startswith("somebody worker polish: ")
    # Postgres keeps details in an order of its own.
    assert sorted(told[2].partition(": ")[2].split(", ")) == ["3 images", "worker &lt;w&gt;"]
    assert told[1] == "ana renamed it to “?”"
    assert told[0].startswith("ana renamed it to “{name} xxx")
    assert len(told[0]) < 200


def test_every_action_that_has_words_can_be_chosen() -> None:
    assert WORDS.keys() == CHOICES.keys()
