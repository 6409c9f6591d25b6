"""What every answer carries, and who may not post."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import dashboard

FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_foreign_posts_are_refused(
    client: FlaskClient, farm, row_counts: Callable[[], dict[str, int]], headers: dict[str, str]
) -> None:
    job_id = farm.submit()
    before = row_counts()
    answers = [
        client.post("/api/v1/jobs", json={"prompts": ["a fox"]}, headers=headers),
        client.post(f"/api/v1/jobs/{job_id}/cancel", headers=headers),
        client.post("/jobs/new", data={"prompts": "a fox"}, headers=headers),
        client.post("/jobs/act", data={"action": "cancel", "job": job_id}, headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert [answer.mimetype for answer in answers] == ["application/problem+json"] * 2 + ["text/html"] * 2
    assert row_counts() == before
    assert client.get(f"/api/v1/jobs/{job_id}").get_json()["state"] == "queued"


@pytest.mark.parametrize("headers", OWN)
def test_own_posts_and_programs_are_welcome(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.post("/api/v1/jobs", json={"prompts": ["a fox"]}, headers=headers).status_code == 201


@pytest.mark.parametrize("headers", FOREIGN)
def test_foreign_links_are_welcome(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/jobs/new", "/workers", "/nowhere", "/api/v1/jobs", "/api/nowhere", "/static/farm.css"]
)
def test_headers_of_every_answer(client: FlaskClient, path: str) -> None:
    with client.get(path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"


def test_no_template_holds_inline_script_or_style() -> None:
    folder = Path(dashboard.__file__).parent / "templates"
    for template in folder.iterdir():
        text = template.read_text()
        assert "style=" not in text, template
        assert "<style" not in text, template
        assert "<script>" not in text, template
        assert " on" + "click" not in text, template
        assert "hx-on" not in text, template
        assert "| safe" not in text, template
