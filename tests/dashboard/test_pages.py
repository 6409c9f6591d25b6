"""The pages as a browser without JavaScript sees them."""

from io import BytesIO

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, func, select

from farm.models import Job

HOSTILE = "<script>alert(1)</script> \u202ereversed\u202c & \"quoted\" 'too'"


def submit(client: FlaskClient, prompts: str, **fields: str) -> int:
    answer = client.post("/jobs/new", data={"prompts": prompts, "refiner": "no", "seed": "3", **fields})
    assert answer.status_code == 303, answer.text
    return int(answer.headers["Location"].rpartition("/")[2])


def test_the_empty_farm_invites(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "No job yet" in page
    assert 'href="/jobs/new"' in page


def test_the_form_submits_pasted_prompts_and_files(client: FlaskClient) -> None:
    assert "One prompt per line" in client.get("/jobs/new").text
    job_id = submit(client, "a fox\nan owl\n", name="animals")
    page = client.get(f"/jobs/{job_id}").text
    assert "animals" in page
    assert "a fox" in page
    assert ">0</strong> of 2 pictures" in page
    assert "animals" in client.get("/").text
    answer = client.post("/jobs/new", data={"file": (BytesIO(b"prompt\nfrom a file\n"), "p.csv")})
    assert "from a file" in client.get(answer.headers["Location"]).text


def test_what_is_wrong_stands_at_its_field_and_input_is_kept(client: FlaskClient, engine: Engine) -> None:
    answer = client.post("/jobs/new", data={"prompts": "a kept prompt", "size": "250x256", "name": "kept name"})
    assert answer.status_code == 422
    assert "250 is not divisible by 8" in answer.text
    assert "a kept prompt" in answer.text
    assert "kept name" in answer.text
    assert "Nothing was submitted" in answer.text
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Job)) == 0


def test_progress_and_pictures_come_without_a_reload(client: FlaskClient, render) -> None:
    job_id = submit(client, "one\ntwo\nthree\n", images_per_prompt="5")
    page = client.get(f"/jobs/{job_id}").text
    assert f'data-events="/jobs/{job_id}/events"' in page
    render(job_id)
    live = client.get(f"/jobs/{job_id}/fragments/status")
    assert ">8</strong> of 15 pictures" in live.text
    assert 'id="image-7" class="tile completed" hx-swap-oob="true"' in live.text
    assert 'aria-valuenow="53"' in live.text
    render(job_id)
    # To htmx this status is a 200 that ends the polling.
    assert client.get(f"/jobs/{job_id}/fragments/status").status_code == 286
    assert "data-events" not in client.get(f"/jobs/{job_id}").text


def test_a_picture_is_shown_with_its_parameters_and_neighbours(client: FlaskClient, render) -> None:
    job_id = submit(client, "one\ntwo\nthree\n")
    render(job_id)
    page = client.get(f"/jobs/{job_id}/images/1").text
    assert f'src="/api/v1/jobs/{job_id}/images/1/file?v=' in page
    assert "guidance_scale" in page
    assert f'rel="prev" href="/jobs/{job_id}/images/0"' in page
    assert f'rel="next" href="/jobs/{job_id}/images/2"' in page
    assert 'rel="next"' not in client.get(f"/jobs/{job_id}/images/2").text


def test_a_long_gallery_is_paged(client: FlaskClient) -> None:
    job_id = submit(client, "p\n", images_per_prompt="130")
    first = client.get(f"/jobs/{job_id}").text
    assert first.count('class="tile') == 60
    second = client.get(f"/jobs/{job_id}/fragments/images?after=59").text
    assert 'id="image-60"' in second
    third = client.get(f"/jobs/{job_id}/fragments/images?after=119").text
    assert third.count('class="tile') == 10
    assert 'class="more"' not in third


def test_cancel_is_a_button(client: FlaskClient) -> None:
    job_id = submit(client, "one\n")
    assert "Cancel job" in client.get(f"/jobs/{job_id}").text
    click = {"action": "cancel", "job": str(job_id), "from": "job"}
    page = client.post("/jobs/act", data=click, follow_redirects=True).text
    assert "badge cancelled" in page
    assert "Cancel job" not in page


def test_workers_page_is_helpful_without_workers(client: FlaskClient) -> None:
    assert "farm worker" in client.get("/workers").text


@pytest.mark.parametrize("path", ["/jobs/99", "/jobs/99/images/0", "/nothing"])
def test_missing_pages_are_pages(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "All jobs" in answer.text


def test_hostile_prompts_are_text(client: FlaskClient, render) -> None:
    job_id = submit(client, HOSTILE, name=HOSTILE)
    render(job_id)
    for path in ("/", f"/jobs/{job_id}", f"/jobs/{job_id}/images/0"):
        page = client.get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "<bdi" in page


def test_no_page_loads_or_runs_anything_foreign(client: FlaskClient) -> None:
    job_id = submit(client, "one\n")
    for path in ("/", "/jobs/new", f"/jobs/{job_id}", f"/jobs/{job_id}/images/0", "/workers", "/nothing"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "style=" not in answer.text
        assert "onclick" not in answer.text
        assert all('src="' in part.partition(">")[0] for part in answer.text.split("<script")[1:])
        assert "//" not in answer.text.replace("http://localhost", "")
