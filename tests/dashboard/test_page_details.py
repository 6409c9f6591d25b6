"""The pages, as a browser without JavaScript sees them, and the fragments that keep them live."""

import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from farm.control import cancel_job
from farm.settings import Settings

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202eevil"
RowCounts = Callable[[], dict[str, int]]


class Elements(HTMLParser):
    """Collects the start tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def by_id(self, identifier: str) -> dict[str, str | None]:
        (found,) = [attributes for _, attributes in self.found if attributes.get("id") == identifier]
        return found


def page(response: TestResponse, status: int = 200) -> str:
    assert response.status_code == status, response.text
    assert response.mimetype == "text/html"
    return response.text


def send(client: FlaskClient, **fields: object) -> TestResponse:
    return client.post("/jobs/new", data=fields, content_type="multipart/form-data")


def test_an_empty_farm_says_how_to_begin(client: FlaskClient) -> None:
    text = page(client.get("/"))
    assert "No job yet" in text
    assert "/jobs/new" in text


def test_the_list_is_live_while_something_moves(client: FlaskClient, farm) -> None:
    done = farm.complete(2, name="Finished foxes")
    text = page(client.get("/"))
    assert "Finished foxes" in text
    assert f"/api/v1/jobs/{done}/images/0/thumbnail" in text
    assert Elements(text).by_id("jobs")["data-events"] == "/jobs/events"
    farm.submit(name="Waiting owls")
    text = page(client.get("/fragments/jobs"))
    assert "Waiting owls" in text
    assert "<html" not in text


def test_the_list_is_paged_by_key(client: FlaskClient, farm) -> None:
    for _ in range(27):
        cancel_job(farm.engine, farm.submit())
    assert 'id="job-3"' in page(client.get("/"))
    assert "/?before=3" in client.get("/").text
    older = page(client.get("/?before=3"))
    assert re.findall(r'id="job-(\d+)"', older) == ["2", "1"]
    assert Elements(older).by_id("jobs")["data-events"] == "/jobs/events?before=3"
    assert "Older jobs" not in older
    assert "no older job" in page(client.get("/?before=1"))


def test_a_new_job_from_pasted_prompts(client: FlaskClient) -> None:
    page(client.get("/jobs/new"))
    response = send(
        client,
        prompts="a fox\r\n\r\n  an owl\r\n",
        pipeline="tiny",
        size="256x512",
        num_inference_steps="12",
        guidance_scale="",
        refiner="no",
        refiner_split="",
        seed="5",
        images_per_prompt="2",
        negative_prompt="blurry",
        name="Animals",
    )
    assert (response.status_code, response.headers["Location"]) == (303, "/jobs/1")
    images = client.get("/api/v1/jobs/1/images").get_json()["images"]
    assert len(images) == 4
    assert (images[0]["prompt"], images[0]["seed"], images[0]["width"], images[0]["height"]) == ("a fox", 5, 256, 512)
    assert (images[0]["refiner_split"], images[0]["negative_prompt"]) == (None, "blurry")
    assert client.get("/api/v1/jobs/1").get_json()["name"] == "Animals"


def test_the_form_has_a_split_too(client: FlaskClient) -> None:
    send(client, prompts="a fox", refiner="yes", refiner_split="0.6")
    assert client.get("/api/v1/jobs/1/images/0").get_json()["refiner_split"] == 0.6


def test_a_new_job_from_a_file_names_unused_columns(client: FlaskClient) -> None:
    table = io.BytesIO(b"prompt,<b>mood</b>\na fox,calm\n")
    response = send(client, prompts="", file=(table, "p.csv"))
    assert response.status_code == 303
    text = page(client.get(response.headers["Location"]))
    assert "&lt;b&gt;mood&lt;/b&gt;" in text


def test_a_refused_form_comes_back_with_errors_and_input(client: FlaskClient, row_counts: RowCounts) -> None:
    text = page(
        send(
            client,
            prompts="a fox\r\nan owl",
            size="100x256",
            num_inference_steps="many",
            name=HOSTILE,
            negative_prompt="kept",
            refiner="no",
        ),
        422,
    )
    assert "Nothing was submitted" in text
    elements = Elements(text)
    assert "a fox\r\nan owl" in text
    assert "kept" in text
    assert elements.by_id("name")["value"] == HOSTILE
    assert elements.by_id("num_inference_steps")["value"] == "many"
    assert elements.by_id("num_inference_steps")["aria-invalid"] == "true"
    assert elements.by_id("num_inference_steps")["aria-describedby"] == "wrong-num_inference_steps"
    assert elements.by_id("wrong-num_inference_steps")
    assert "aria-invalid" not in elements.by_id("seed")
    assert not any(row_counts().values())


def test_errors_name_the_line(client: FlaskClient, row_counts: RowCounts) -> None:
    text = page(send(client, prompts="", file=(io.BytesIO(b"prompt,width\na,256\nb,100\n"), "p.csv")), 422)
    assert "Line 3: " in text
    assert Elements(text).by_id("size")["aria-invalid"] == "true"
    assert not any(row_counts().values())


@pytest.mark.parametrize(
    ("prompts", "file"),
    [
        ("", None),
        (" \r\n ", None),
        ("a\0b", None),
        ("a fox", (b"an owl", "p.txt")),
        ("", (b"\xff", "p.txt")),
        ("", (b"an owl", "p.pdf")),
        ("", (b'{"\\ud800": 1}', "p.jsonl")),
        ("", (b'{"prompt": "\\ud800"}', "p.jsonl")),
    ],
)
def test_unusable_prompts_are_refused(
    client: FlaskClient, row_counts: RowCounts, prompts: str, file: tuple[bytes, str] | None
) -> None:
    fields: dict[str, object] = {"prompts": prompts}
    if file is not None:
        fields["file"] = (io.BytesIO(file[0]), file[1])
    assert "aria-invalid" in page(send(client, **fields), 422) or file is not None
    assert not any(row_counts().values())


def test_an_upload_beyond_the_limit_is_explained(
    let_in, make_app: Callable[[Settings], Flask], settings: Settings, large_upload: dict[str, Any]
) -> None:
    client = let_in(make_app(settings.model_copy(update={"max_upload_mib": 1})))
    assert "1 MiB" in page(client.post("/jobs/new", **large_upload), 413)


def test_a_running_job_is_live_and_can_be_cancelled(client: FlaskClient, farm) -> None:
    job_id = farm.submit(3, name="Foxes")
    farm.render(job_id, 1)
    farm.fail(farm.start(job_id), HOSTILE)
    text = page(client.get(f"/jobs/{job_id}"))
    elements = Elements(text)
    assert elements.by_id("live")["data-events"] == f"/jobs/{job_id}/events"
    assert "Cancel job" in text
    assert "<strong>1</strong> of 3 pictures" in text
    assert "1 failed" in text
    assert "&lt;script&gt;alert(1)" in text
    (thumbnail,) = [image for image in elements.all("img") if image.get("loading") == "lazy"]
    assert (thumbnail["width"], thumbnail["height"]) == ("256", "256")
    click = {"action": "cancel", "job": job_id, "from": "job"}
    response = client.post("/jobs/act", data=click)
    assert response.status_code == 303
    text = page(client.get(response.headers["Location"]))
    assert f"Cancelled: job {job_id}." in text
    assert "data-events" not in Elements(text).by_id("live")
    assert "Cancel job" not in text
    assert "1 cancelled" in text
    # A second click on a page that is out of date does no harm.
    text = page(client.post("/jobs/act", data=click, follow_redirects=True))
    assert f"job {job_id}: had ended already." in text


def test_the_live_part_brings_only_what_is_new(client: FlaskClient, farm) -> None:
    job_id = farm.submit(3)
    farm.render(job_id, 2)
    path = f"/jobs/{job_id}/fragments/status"
    text = page(client.get(path))
    assert re.findall(r'id="image-(\d+)"', text) == ["0", "1"]
    assert "hx-swap-oob" in text
    fields = {str(field["name"]): field["value"] for field in Elements(text).all("input")}
    # Images beyond those that the page shows are left out.
    text = page(client.get(path, query_string={"below": 1}))
    assert re.findall(r'id="image-(\d+)"', text) == ["0"]
    later = int(fields["since"] or 0) + 60_000
    assert "image-" not in page(client.get(path, query_string={"since": later}))


def test_the_live_part_ends_with_the_job(client: FlaskClient, farm) -> None:
    page(client.get(f"/jobs/{farm.complete()}/fragments/status"), 286)


@pytest.mark.parametrize("query", ["since=x", f"since={2**63 - 1}", "below=-1"])
def test_unreadable_cursors_are_refused(client: FlaskClient, farm, query: str) -> None:
    page(client.get(f"/jobs/{farm.submit()}/fragments/status?{query}"), 422)


def test_the_gallery_goes_on_with_and_without_javascript(client: FlaskClient, farm) -> None:
    job_id = farm.submit(100)
    text = page(client.get(f"/jobs/{job_id}"))
    assert len(re.findall(r'id="image-\d+"', text)) == 60
    assert f'href="/jobs/{job_id}?after=59#pictures"' in text
    rest = page(client.get(f"/jobs/{job_id}/fragments/images?after=59"))
    assert re.findall(r'id="image-(\d+)"', rest)[0] == "60"
    assert len(re.findall(r'id="image-\d+"', rest)) == 40
    assert "More pictures" not in rest
    assert 'id="image-60"' in page(client.get(f"/jobs/{job_id}?after=59"))


def test_a_picture_with_its_parameters_and_neighbours(client: FlaskClient, farm) -> None:
    job_id = farm.complete(3, negative_prompt="blurry", size="256x512")
    text = page(client.get(f"/jobs/{job_id}/images/1"))
    elements = Elements(text)
    assert {str(link.get("rel")): link["href"] for link in elements.all("a") if "rel" in link} == {
        "prev": f"/jobs/{job_id}/images/0",
        "next": f"/jobs/{job_id}/images/2",
    }
    assert "blurry" in text
    assert "512" in text
    assert "download=1" in text
    assert 'rel="prev"' not in client.get(f"/jobs/{job_id}/images/0").text
    assert 'rel="next"' not in client.get(f"/jobs/{job_id}/images/2").text


def test_a_failed_and_a_pending_picture(client: FlaskClient, farm) -> None:
    job_id = farm.submit(2)
    farm.fail(farm.start(job_id), HOSTILE)
    text = page(client.get(f"/jobs/{job_id}/images/0"))
    assert "could not be rendered" in text
    assert "<script>alert" not in text
    assert "pending" in page(client.get(f"/jobs/{job_id}/images/1"))


def test_hostile_prompts_stay_text_everywhere(client: FlaskClient, farm) -> None:
    job_id = farm.submit([HOSTILE], negative_prompt=HOSTILE)
    farm.render(job_id, 1)
    farm.add_worker(device_name=HOSTILE)
    for path in (
        "/",
        f"/jobs/{job_id}",
        f"/jobs/{job_id}/images/0",
        f"/jobs/{job_id}/fragments/status?since=0",
        "/workers",
    ):
        text = client.get(path).text
        assert "&lt;script&gt;alert(1)" in text, path
        elements = Elements(text)
        assert all("src" in script for script in elements.all("script")), path
        assert not [image for image in elements.all("img") if image.get("src") == "x"], path
        assert "<bdi>&lt;script&gt;" in text, path


def test_workers(client: FlaskClient, farm) -> None:
    assert "No worker" in page(client.get("/workers"))
    farm.add_worker()
    farm.start(farm.submit())
    text = page(client.get("/fragments/workers"))
    assert "Test GPU" in text
    assert "base of 1 picture" in text
    assert "<html" not in text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/jobs/1", "/jobs/1/images/0", "/jobs/x", f"/jobs/{2**70}", "/jobs/" + "9" * 5000]
)
def test_unknown_pages_are_not_found_in_the_same_design(client: FlaskClient, path: str) -> None:
    text = page(client.get(path), 404)
    assert "farm.css" in text
    assert "All jobs" in text


def test_an_unreadable_page_address_is_explained(client: FlaskClient) -> None:
    assert "whole number" in page(client.get("/?before=x"), 422)


def test_an_error_of_ours_has_a_page_and_a_problem_document(client: FlaskClient, app: Flask) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False

    def broken() -> str:
        raise RuntimeError("secret detail")

    app.view_functions["pages.jobs"] = broken
    app.view_functions["api_jobs.index"] = broken
    text = page(client.get("/"), 500)
    assert "secret" not in text
    assert "farm.css" in text
    response = client.get("/api/v1/jobs")
    assert (response.status_code, response.mimetype) == (500, "application/problem+json")
    assert "secret" not in response.text


def test_static_files(client: FlaskClient) -> None:
    for name, media_type in (
        ("farm.css", "text/css"),
        ("farm.js", "text/javascript"),
        ("favicon.svg", "image/svg+xml"),
        ("vendor/htmx-2.0.11.min.js", "text/javascript"),
        ("vendor/htmx-LICENSE.txt", "text/plain"),
    ):
        with client.get(f"/static/{name}") as response:
            assert (response.status_code, response.mimetype) == (200, media_type)
