"""Pictures that go in, fetched from where they lie."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest
from conformance.cases import landscape, png
from flask import Flask
from flask.testing import FlaskClient
from receiver import receiver, status

from farm.settings import Settings


@pytest.fixture
def fetching(make_app: Callable[[Settings], Flask], let_in, settings: Settings) -> FlaskClient:
    """Of a farm that may ask this machine."""
    values = settings.model_dump() | {"allowed_hosts": "127.0.0.0/8", "max_upload_mib": 1}
    client: FlaskClient = let_in(make_app(Settings(**values)))
    return client


def serve(data: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def test_a_picture_is_fetched_and_stored_like_an_upload(fetching: FlaskClient) -> None:
    data = png(landscape())
    with receiver(serve(data)) as server:
        fetched = fetching.post("/api/v1/inputs", json={"url": f"{server.url}/house.png?size=1#here"})
    assert fetched.status_code == 201
    assert fetched.get_json() == fetching.post("/api/v1/inputs", data=data).get_json()
    assert [request.path for request in server.received] == ["/house.png?size=1"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (serve(b"<html>"), "is no picture"),
        (serve(b"x" * (2**20 + 1)), "more than 1,048,576 bytes"),
        (status(404), "answered 404"),
        (status(302), "leads to another address"),
        (status(204), "answered 204"),
    ],
)
def test_what_is_no_picture_is_refused(fetching: FlaskClient, answer, reason: str) -> None:
    with receiver(answer) as server:
        refused = fetching.post("/api/v1/inputs", json={"url": server.url})
    assert refused.status_code == 422
    assert reason in refused.get_json()["detail"]


def test_the_inside_is_not_asked(client: FlaskClient, fetching: FlaskClient) -> None:
    with receiver(serve(png(landscape()))) as server:
        for url in (server.url, server.url.replace("127.0.0.1", "localhost"), "http://169.254.169.254/latest/"):
            refused = client.post("/api/v1/inputs", json={"url": url})
            assert refused.status_code == 422
            assert "FARM_ALLOWED_HOSTS" in refused.get_json()["errors"][0]["message"]
        assert server.received == []
    for body in ({}, {"url": 5}, {"url": "https://example.org", "file": "x"}, {"url": "not one"}):
        assert client.post("/api/v1/inputs", json=body).status_code == 422
    unreachable = fetching.post("/api/v1/inputs", json={"url": server.url})
    assert unreachable.status_code == 422
    assert "cannot be asked" in unreachable.get_json()["detail"]


def test_too_many_at_once_are_told_to_come_back(fetching: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("dashboard.api.inputs._fetches", threading.BoundedSemaphore(1))
    answers = []

    def meanwhile(handler: BaseHTTPRequestHandler) -> None:
        answers.append(
            fetching.application.test_client().post(
                "/api/v1/inputs",
                json={"url": server.url},
                headers={"Authorization": fetching.environ_base["HTTP_AUTHORIZATION"]},
            )
        )
        status(404)(handler)

    with receiver(meanwhile) as server:
        for _ in range(2):
            assert fetching.post("/api/v1/inputs", json={"url": server.url}).status_code == 422
    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "5")] * 2
