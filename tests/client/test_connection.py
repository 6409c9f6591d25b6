"""Between client and farm: answers that get lost, farms that are busy or away, and what people are told."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from running import RunningFarm
from sqlalchemy import Engine

from farm import people
from farm.database import open_database
from farm.embedded import free_port
from farm.limits import Limits
from farm.roles import Role
from producer import (
    Farm,
    FarmError,
    FarmUnavailableError,
    FarmUnreachableError,
    NotAllowedError,
    NotLoggedInError,
    RateLimitedError,
)

#: This farm has no worker for it: such jobs wait.
NOBODY = {"pipeline": "sdxl-1.0"}
SMALL = {"steps": 2, "size": "64x64", "seed": 7, "refiner_split": None}
#: The farm gets the request, and its answer is lost.
CUT = 0


class Front(ThreadingHTTPServer):
    """A proxy before the farm, with mishaps: for one request each, in their order, of those whose path holds ``affected``."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = httpx.Client(base_url=upstream, timeout=30)
        self.mishaps: list[int] = []
        self.affected = ""
        self.seen: list[tuple[str, str, str | None]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Front

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.seen.append((self.command, self.path, self.headers.get("Idempotency-Key")))
            affected = self.server.mishaps and self.server.affected in self.path
            mishap = self.server.mishaps.pop(0) if affected else None
        if mishap:
            self.send_response(mishap)
            self.send_header("Retry-After", "1")
            self.end_headers()
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        answer = self.server.upstream.request(self.command, self.path, content=body, headers=headers)
        if mishap == CUT:
            return
        self.send_response(answer.status_code)
        for name in ("Content-Type", "Idempotent-Replayed"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST  # noqa: N815 - the names are the library's

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def front(running: RunningFarm) -> Iterator[Front]:
    with Front(running.url) as front:
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        yield front
        front.shutdown()
        thread.join()
        front.upstream.close()


@pytest.fixture
def through(front: Front, running: RunningFarm) -> Iterator[Farm]:
    """The farm as it is seen through the proxy."""
    with Farm(front.url, running.token) as farm:
        yield farm


@pytest.fixture
def engine(running: RunningFarm) -> Iterator[Engine]:
    engine = open_database(running.settings)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("count", [2, 1_200])
def test_a_lost_answer_makes_no_second_job(front: Front, through: Farm, farm: Farm, count: int) -> None:
    front.mishaps = [CUT, 503, CUT]
    job = through.submit((f"picture {number}" for number in range(count)), name="once", **NOBODY)
    keys = [key for method, path, key in front.seen if (method, path.partition("?")[0]) == ("POST", "/api/v1/jobs")]
    assert len(keys) == 4
    assert len({*keys}) == 1
    assert [other.id for other in farm.jobs(3) if other.name == "once" and other.state == "queued"] == [job.id]
    assert job.cancel().counts.total == count


def test_a_file_is_sent_again_as_a_whole(front: Front, through: Farm, tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("prompt,seed\na fox,3\nan owl,4\n")
    front.mishaps = [CUT, CUT]
    job = through.submit(file=file, **NOBODY).cancel()
    assert [(image.prompt, image.seed) for image in job.images()] == [("a fox", 3), ("an owl", 4)]


def test_what_is_not_safe_to_repeat_is_not_repeated(front: Front, through: Farm, farm: Farm) -> None:
    # Refused for being too many, it was not done.
    front.mishaps = [429]
    through.add_user("otto", "viewer")
    front.mishaps = [CUT]
    with pytest.raises(FarmUnreachableError) as cut:
        through.add_user("olga", "viewer")
    assert cut.value.was_sent
    front.mishaps = [503]
    with pytest.raises(FarmUnavailableError) as away:
        through.add_user("oona", "viewer")
    assert (away.value.status, away.value.retry_after) == (503, 1)
    assert {"otto", "olga"} <= {user["name"] for user in farm.users()}
    assert [path for method, path, _ in front.seen if method == "POST"] == ["/api/v1/users"] * 4


def test_pictures_arrive_through_a_bad_connection(front: Front, through: Farm, farm: Farm, tmp_path: Path) -> None:
    job = through.job(farm.submit([f"picture {number}" for number in range(6)], **SMALL).wait().id)
    front.affected = "/file"
    front.mishaps = [CUT, 429, CUT, 502, CUT, 504, CUT, CUT]
    paths = job.download(tmp_path)
    assert len(paths) == len([*tmp_path.iterdir()]) == 6
    assert job.grid(cell=32).info["images"] == 6
    assert not front.mishaps


def test_a_quota_is_told_with_its_time(running: RunningFarm, engine: Engine) -> None:
    user = people.local_user(engine).user_id
    token = people.make_token(engine, user, "few", limits=Limits(requests_per_minute=2))
    with Farm(running.url, token, patience_seconds=0) as farm:
        farm.me()
        farm.me()
        with pytest.raises(RateLimitedError, match="2 requests a minute") as limited:
            farm.me()
        assert limited.value.status == 429
        assert 0 < limited.value.retry_after <= 60
    daily = people.make_token(engine, user, "small", limits=Limits(images_per_day=1))
    # A quota of a day is not waited for.
    with Farm(running.url, daily) as farm, pytest.raises(RateLimitedError):
        farm.submit(["a fox", "an owl"], **NOBODY)


def test_who_asks_wrongly_is_told_what_to_do(running: RunningFarm, engine: Engine) -> None:
    with Farm(f"http://127.0.0.1:{free_port()}", "token") as nowhere:
        with pytest.raises(FarmUnreachableError, match="Start one with `farm up`, or set FARM_URL") as away:
            nowhere.me()
        assert not away.value.was_sent
    with Farm(running.url, "farm_wrong") as stranger, pytest.raises(NotLoggedInError, match="set FARM_TOKEN"):
        stranger.jobs()
    viewer = people.add_user(engine, "vera", Role.VIEWER)
    with (
        Farm(running.url, people.make_token(engine, viewer.user_id, "looks")) as farm,
        pytest.raises(NotAllowedError, match="submitter"),
    ):
        farm.submit(["a fox"])


def test_waiting_survives_a_restart_of_the_dashboard(running: RunningFarm, farm: Farm) -> None:
    job = farm.submit(["a long fox"], **{**SMALL, "steps": 200, "size": "256x256"})
    seen: list[int] = []
    problems: list[FarmError] = []

    def watch() -> None:
        try:
            seen.extend(image.index for image in job.images(as_completed=True))
        except FarmError as error:
            problems.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    dashboard = next(process for process in running.processes if "dashboard" in process.args)
    dashboard.terminate()
    dashboard.wait(240)
    running.start("dashboard")
    running.await_dashboard()
    assert job.wait(timeout=240).state == "completed"
    watcher.join(240)
    assert (seen, problems) == ([0], [])
