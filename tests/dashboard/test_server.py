"""The dashboard as a process of its own."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from running import wait_until
from sqlalchemy import Engine, func, select

from dashboard.compatible.rendering import MAX_WAITING, MAX_WAITING_EACH
from dashboard.live import MAX_STREAMS
from dashboard.server import serve
from farm import people
from farm.errors import ConfigurationError
from farm.models import Job
from farm.roles import Role
from farm.settings import Settings

UNLIMITED = httpx.Limits(max_connections=None)
PROGRAM = """
import sys
from dashboard.live import MAX_STREAMS
from dashboard.server import serve
from farm.settings import Settings
serve(Settings.model_validate_json(sys.argv[1]))
"""


@contextmanager
def process(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", PROGRAM, settings.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_its_address_and_stops_cleanly(settings: Settings, number: signal.Signals) -> None:
    with process(settings) as (running, url):
        assert httpx.get(f"{url}/readyz", timeout=60).json()["status"] == "ok"
        running.send_signal(number)
        _, complaints = running.communicate(timeout=20)
        assert running.returncode == 0
        assert "Traceback" not in complaints


def test_a_name_with_several_addresses_gets_one_port(settings: Settings) -> None:
    with process(settings.model_copy(update={"host": "localhost"})) as (_, url):
        assert httpx.get(f"{url}/healthz", timeout=60).is_success


def test_a_body_beyond_the_limit_gets_its_reason_over_the_wire(settings: Settings, engine: Engine) -> None:
    token = people.make_token(engine, people.local_user(engine).user_id, "tests")
    headers = {"Authorization": f"Bearer {token}"}
    with process(settings.model_copy(update={"max_upload_mib": 1})) as (_, url):
        response = httpx.post(
            f"{url}/api/v1/jobs", files={"file": ("p.txt", b"a\n" * 700_000)}, headers=headers, timeout=60
        )
        assert (response.status_code, response.headers["content-type"]) == (413, "application/problem+json")
        # Far beyond it the server does not even read on.
        response = httpx.post(
            f"{url}/api/v1/jobs", files={"file": ("p.txt", b"a\n" * 2**21)}, headers=headers, timeout=60
        )
        assert response.status_code == 413
        assert httpx.get(f"{url}/healthz", timeout=60).is_success


@pytest.mark.parametrize("proxies", [0, 1])
def test_what_a_proxy_tells_arrives_where_it_is_trusted(settings: Settings, engine: Engine, proxies: int) -> None:
    token = people.make_token(engine, people.local_user(engine).user_id, "tests")
    headers = {
        "Authorization": f"Bearer {token}",
        "X-Forwarded-For": "10.9.9.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "farm.example",
    }
    with process(settings.model_copy(update={"trusted_proxies": proxies})) as (_, url):
        link = httpx.post(f"{url}/api/v1/login-links", headers=headers, timeout=60).json()["url"]
        assert link.startswith("https://farm.example/enter/" if proxies else f"{url}/enter/")
        path = link[link.index("/enter/") :]
        entered = httpx.get(f"{url}{path}", headers=headers, timeout=60)
        assert ("Secure" in entered.headers["set-cookie"]) == bool(proxies)


def test_others_are_let_near_only_when_somebody_could_log_in(settings: Settings, engine: Engine) -> None:
    settings = settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(ConfigurationError, match="farm user add"):
        serve(settings)
    people.add_user(engine, "ana", Role.ADMIN, "correct horse battery")
    with process(settings) as (_, url):
        port = url.rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).is_success


def test_a_taken_port_is_explained(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=str(port)):
            serve(settings.model_copy(update={"port": port}))


def test_a_caller_learns_the_address(settings: Settings) -> None:
    class EnoughError(Exception):
        pass

    heard: list[str] = []

    def listen(url: str) -> None:
        heard.append(url)
        raise EnoughError

    with pytest.raises(EnoughError):
        serve(settings, listen)
    assert heard[0].startswith("http://127.0.0.1:")


def test_streams_leave_room_for_pages_and_give_their_places_back(settings: Settings, engine: Engine) -> None:
    headers = {"Authorization": f"Bearer {people.make_token(engine, people.local_user(engine).user_id, 'tests')}"}

    def open_stream() -> httpx.Response:
        return client.send(client.build_request("GET", "/jobs/events"), stream=True)

    with (
        process(settings) as (running, url),
        httpx.Client(base_url=url, headers=headers, limits=UNLIMITED, timeout=60) as client,
    ):
        streams = [open_stream() for _ in range(MAX_STREAMS)]
        assert {stream.status_code for stream in streams} == {200}
        assert open_stream().status_code == 503
        assert client.get("/").status_code == 200
        for stream in streams:
            assert next(stream.iter_lines()).startswith("retry:")
            stream.close()
        # The server notices within a second or two that nobody listens any more.
        wait_until(lambda: open_stream().status_code == 200, "a place for another stream")
        # Nor does a stream that goes on keep the server from stopping.
        running.terminate()
        assert running.wait(10) == 0


def test_who_waits_for_pictures_leaves_room_and_holds_up_no_stop(settings: Settings, engine: Engine, farm) -> None:
    farm.add_worker()
    users = [people.local_user(engine), people.add_user(engine, "ana", Role.SUBMITTER)]
    tokens = [people.make_token(engine, user.user_id, "tests") for user in users]
    stranger = people.make_token(engine, people.add_user(engine, "bob", Role.SUBMITTER).user_id, "tests")

    def shown(token: str) -> dict[str, dict[str, str]]:
        return {"headers": {"Authorization": f"Bearer {token}"}}

    def waiting() -> int:
        with engine.connect() as connection:
            query = select(func.count()).select_from(Job).where(Job.finished_at.is_(None))
            return connection.execute(query).scalar_one()

    async def ask(url: str) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
            async with asyncio.TaskGroup() as group:
                tasks = []
                for token in tokens:
                    tasks += [
                        group.create_task(client.post("/v1/images/generations", json={"prompt": "fox"}, **shown(token)))
                        for _ in range(MAX_WAITING_EACH)
                    ]
                    await asyncio.to_thread(wait_until, lambda count=len(tasks): waiting() == count, "all who wait")
                    if token is tokens[0]:
                        refused = await client.post("/v1/images/generations", json={"prompt": "fox"}, **shown(token))
                        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
                        assert "30 of your requests" in refused.json()["error"]["message"]
                assert len(tasks) == MAX_WAITING
                refused = await client.post("/sdapi/v1/txt2img", json={"prompt": "a fox"}, **shown(stranger))
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
                assert "/api/v1/jobs" in refused.json()["detail"]
                assert (await client.get("/v1/models", **shown(stranger))).status_code == 200
                for task in tasks[:-1]:
                    task.cancel()
                await asyncio.to_thread(wait_until, lambda: waiting() == 1, "the end of what nobody waits for")
                running.terminate()
            answer = tasks[-1].result()
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert "was cancelled" in answer.json()["error"]["message"]

    # The worker beats once, and is to count as alive until the end.
    with process(settings.model_copy(update={"lease_seconds": 600.0})) as (running, url):
        asyncio.run(ask(url))
        assert running.wait(20) == 0
    assert waiting() == 0
