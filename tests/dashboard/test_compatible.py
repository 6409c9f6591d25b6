"""The APIs of other services, as far as they need no worker: who is let in, errors, waiting, signed addresses."""

import base64
import time
from collections.abc import Callable

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from dashboard.context import context
from dashboard.queries.images import get_image
from dashboard.signing import SIGNED_URL_SECONDS, signed_url
from farm import people
from farm.models import Job
from farm.settings import Settings
from farm.states import JobState

ASKED = {"prompt": "a fox", "size": "64x64"}


@pytest.fixture
def impatient(make_app: Callable[[Settings], Flask], settings: Settings, let_in) -> FlaskClient:
    return let_in(make_app(settings.model_copy(update={"interactive_seconds": 0.5})))


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"somebody:{password}".encode()).decode()}


def test_what_there_is_not_is_told_in_the_form_of_the_api(client: FlaskClient) -> None:
    answer = client.post("/v1/chat/completions", json={})
    assert (answer.status_code, answer.get_json()["error"]["type"]) == (404, "invalid_request_error")
    assert client.post("/v1/images/generations", data="{", content_type="application/json").status_code == 400
    answer = client.post("/sdapi/v1/extra-single-image", json={})
    assert (answer.status_code, answer.get_json()) == (404, {"detail": "There is nothing at this address."})
    assert client.get("/sdapi/v1/txt2img").status_code == 405


def test_a_token_is_a_password_for_programs_that_know_passwords_alone(engine: Engine, stranger: FlaskClient) -> None:
    token = people.make_token(engine, people.local_user(engine).user_id, "tests")
    assert stranger.get("/sdapi/v1/options", headers=basic(token)).status_code == 200
    assert stranger.get("/v1/models", headers=basic(token)).status_code == 200
    # Nowhere else, where browsers may keep passwords.
    assert stranger.get("/api/v1/me", headers=basic(token)).status_code == 401
    refused = stranger.get("/sdapi/v1/options", headers=basic("wrong"))
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="sdxl-farm"')
    assert "API token" in refused.get_json()["detail"]


def test_settings_are_each_callers_own(app: Flask, engine: Engine) -> None:
    callers = []
    for name in ("ana", "ben"):
        who = people.add_user(engine, name, people.Role.SUBMITTER)
        callers.append(app.test_client())
        callers[-1].environ_base["HTTP_AUTHORIZATION"] = f"Bearer {people.make_token(engine, who.user_id, 'tests')}"
    ana, ben = callers
    assert ana.post("/sdapi/v1/options", json={"sd_model_checkpoint": "sdxl-1.0"}).get_json() == {"ignored": []}
    assert ana.get("/sdapi/v1/options").get_json()["sd_model_checkpoint"] == "sdxl-1.0"
    assert ben.get("/sdapi/v1/options").get_json()["sd_model_checkpoint"] == "tiny"


def test_without_workers_nothing_is_submitted(client: FlaskClient, farm, row_counts) -> None:
    before = row_counts()
    for path, body in (("/v1/images/generations", ASKED), ("/sdapi/v1/txt2img", {"prompt": "a fox"})):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert "farm worker --pipeline tiny" in answer.get_data(as_text=True)
    farm.add_worker(stages=["base"])
    answer = client.post("/v1/images/generations", json=ASKED)
    assert "renders the refiner of tiny" in answer.get_json()["error"]["message"]
    assert {name for name, count in row_counts().items() if count != before[name]} == {"workers"}


def test_what_takes_too_long_is_cancelled_unless_somebody_comes_back_for_it(
    impatient: FlaskClient, farm, engine: Engine
) -> None:
    farm.add_worker()
    asked = {**ASKED, "refiner_split": "none"}
    answer = impatient.post("/v1/images/generations", json=asked)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    assert "was not finished within 0.5 s and was cancelled" in answer.get_json()["error"]["message"]
    kept = impatient.post("/v1/images/generations", json=asked, headers={"Idempotency-Key": "later"})
    assert "same Idempotency-Key" in kept.get_json()["error"]["message"]
    assert [job.state for job in jobs(engine)] == [JobState.CANCELLED, JobState.QUEUED]
    # It was rendered meanwhile.
    farm.finish(farm.start(jobs(engine)[-1].id))
    again = impatient.post("/v1/images/generations", json=asked, headers={"Idempotency-Key": "later"})
    assert again.get_json()["data"][0]["b64_json"]


def jobs(engine: Engine) -> list[Job]:
    with Session(engine, expire_on_commit=False) as session:
        return list(session.scalars(select(Job).order_by(Job.id)))


def test_a_signed_address_shows_its_picture_for_an_hour(
    app: Flask, make_app, settings: Settings, farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = farm.complete(2)
    with app.test_request_context():
        view = get_image(farm.engine, job_id, 1)
        url = signed_url(view)
        with monkeypatch.context() as patched:
            patched.setattr(TimestampSigner, "get_timestamp", lambda self: int(time.time()) - SIGNED_URL_SECONDS - 5)
            old = signed_url(view)
        other = signed_url(get_image(farm.engine, job_id, 0))
    # Another dashboard of the same farm.
    stranger = make_app(settings).test_client()
    shown = stranger.get(url)
    assert (shown.status_code, shown.mimetype) == (200, "image/png")
    assert shown.data == farm.store.get(view.image.image_key)
    expired = stranger.get(old)
    assert expired.status_code == 410
    assert "hour" in expired.get_data(as_text=True)
    assert stranger.get("/files/forged").status_code == 404
    # It is good for one picture: what says which is signed, too.
    (which, seal), (another, _) = (address.rsplit("/", 1)[1].split(".", 1) for address in (url, other))
    assert stranger.get(f"/files/{which}.{seal}").status_code == 200
    assert stranger.get(f"/files/{another}.{seal}").status_code == 404


def test_where_browsers_reach_the_store_addresses_are_the_stores(
    make_app, settings: Settings, farm, s3_server: str, bucket: str
) -> None:
    job_id = farm.complete()
    there = settings.model_copy(
        update={"store_url": f"s3://{bucket}", "s3_endpoint_url": s3_server, "s3_public_endpoint_url": s3_server}
    )
    app = make_app(there)
    with app.test_request_context():
        view = get_image(farm.engine, job_id, 0)
        context().store.put(view.image.image_key or "", b"the picture", "image/png")
        url = signed_url(view)
    assert url.startswith(s3_server)
    assert httpx.get(url).content == b"the picture"
