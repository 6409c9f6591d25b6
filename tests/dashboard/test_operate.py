"""Workers, queues and plots: what operators see, and what they do to workers."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, func, insert, select, update
from sqlalchemy.orm import Session

from farm import people
from farm.claims import Vitals, renew
from farm.control import pause_job
from farm.models import Activity, Batch, Job, QueueMinute, RenderMinute, Worker
from farm.progress import ProgressBoard
from farm.roles import Role
from farm.settings import Settings
from farm.states import Stage
from farm.transitions import finish_base
from producer.minutes import record_queues

GIB = 2**30


def page(client: FlaskClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text))


def queues(client: FlaskClient) -> dict[str, dict]:
    return {queue["name"]: queue for queue in client.get("/api/v1/queues").get_json()["queues"]}


def minute(
    engine: Engine,
    minutes_ago: int,
    worker_id: str = "w",
    stage: Stage = Stage.BASE,
    now: datetime | None = None,
    **counts: float,
) -> None:
    row = {"worker_id": worker_id, "pipeline": "tiny", "stage": stage, **counts}
    at = func.date_trunc("minute", func.now() if now is None else now) - timedelta(minutes=minutes_ago)
    with engine.begin() as connection:
        connection.execute(insert(RenderMinute).values(minute=at, **row))


def member(app: Flask, engine: Engine, role: Role) -> FlaskClient:
    token = people.make_token(engine, people.add_user(engine, role.value, role).user_id, "t")
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


def test_a_worker_is_shown_with_what_it_does_and_how_it_is(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w", restarts=2, started_at=datetime.now(UTC) - timedelta(hours=3))
    job_id = farm.submit(1)
    farm.start(job_id)
    renew(engine, "w", [], 30, Vitals(3 * GIB, 8 * GIB, 0.5))
    minute(engine, 5, images=100, pictures=90, seconds=50, failures=4)
    minute(engine, 90, images=1000, pictures=1000, seconds=50, failures=1)
    (worker,) = client.get("/api/v1/workers").get_json()["workers"]
    assert worker["state"] == "rendering"
    assert (worker["memory_used"], worker["memory_total"], worker["utilisation"]) == (3 * GIB, 8 * GIB, 0.5)
    assert (worker["pictures_per_hour"], worker["failures_last_hour"], worker["restarts"]) == (90, 4, 2)
    text = page(client, "/workers")
    for told in ("3.0 of 8 GiB", "50 %", "90 pictures/h", "rendering", f"Job {job_id}", "base and refiner", "Drain"):
        assert told in text, told


def test_a_speed_is_that_of_the_time_it_lived(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w", started_at=datetime.now(UTC) - timedelta(minutes=10))
    minute(engine, 1, images=10, pictures=10)
    (worker,) = client.get("/api/v1/workers").get_json()["workers"]
    assert worker["pictures_per_hour"] == pytest.approx(60, abs=1)


def test_draining_and_resuming_are_for_operators_and_noted(
    client: FlaskClient, app: Flask, farm, engine: Engine
) -> None:
    farm.add_worker("host/cuda:0/ab")
    for role in (Role.VIEWER, Role.SUBMITTER):
        some = member(app, engine, role)
        assert some.post("/api/v1/workers/host/cuda:0/ab/drain").status_code == 403
        assert some.post("/workers/host/cuda:0/ab/drain").status_code == 403
        assert "Drain" not in page(some, "/workers")
    operator = member(app, engine, Role.OPERATOR)
    drained = operator.post("/api/v1/workers/host/cuda:0/ab/drain")
    assert (drained.status_code, drained.get_json()["state"]) == (200, "drained")
    assert renew(engine, "host/cuda:0/ab", [], 30).draining
    assert "Resume" in page(operator, "/workers")
    # Without JavaScript too: a form, and back to the page.
    resumed = operator.post("/workers/host/cuda:0/ab/resume")
    assert (resumed.status_code, resumed.headers["Location"]) == (303, "/workers")
    assert not renew(engine, "host/cuda:0/ab", [], 30).draining
    with Session(engine) as session:
        noted = session.execute(select(Activity.actor, Activity.action, Activity.details).order_by(Activity.id)).all()
    assert [tuple(row) for row in noted] == [
        ("operator", "worker.drain", {"worker": "host/cuda:0/ab"}),
        ("operator", "worker.resume", {"worker": "host/cuda:0/ab"}),
    ]


def test_workers_that_are_gone_cannot_be_drained(client: FlaskClient, farm) -> None:
    farm.add_worker("gone", stopped_at=datetime.now(UTC))
    assert client.post("/api/v1/workers/gone/drain").status_code == 409
    assert client.post("/workers/gone/drain").status_code == 409
    assert client.post("/api/v1/workers/never/drain").status_code == 404
    assert "Drain" not in page(client, "/workers")


def test_a_queue_tells_how_much_waits_and_for_how_long(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w", stages=["base"])
    job_id = farm.submit(12, batch_size=4)
    farm.start(job_id)
    minute(engine, 2, images=10, pictures=10, seconds=20)
    with engine.begin() as connection:
        connection.execute(update(Batch).values(run_after=func.now() - timedelta(minutes=9)))
    base = queues(client)["tiny.base"]
    assert (base["waiting"], base["waiting_images"], base["running"]) == (2, 8, 1)
    assert 540 <= base["oldest_seconds"] < 600
    assert (base["workers"], base["workers_idle"], base["seconds_per_image"]) == (1, 0, 2.0)
    assert base["seconds_to_empty"] == 16.0
    assert base["hints"] == ["The only worker is busy; 16 s of work is waiting."]
    text = page(client, "/queues")
    for told in ("2 batches", "8 pictures", "9 min", "2.0 s", "16 s of work is waiting"):
        assert told in text, told


def test_a_worker_of_both_stages_spends_its_time_on_both(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w")
    minute(engine, 2, images=10, seconds=30)
    minute(engine, 2, stage=Stage.REFINER, images=10, pictures=10, seconds=10)
    found = queues(client)
    assert found["tiny.base"]["seconds_per_image"] == 4.0
    assert found["tiny.refiner"]["seconds_per_image"] == 1.0
    assert found["tiny.base"]["seconds_to_empty"] == 0


def test_a_queue_without_workers_says_how_to_get_one(client: FlaskClient, farm, engine: Engine) -> None:
    assert "Nothing waits" in page(client, "/queues")
    job_id = farm.submit(2, batch_size=2, refiner_split=0.8)
    base = queues(client)["tiny.base"]
    assert base["hints"] == ["No worker serves tiny.base. Start one: farm worker --pipeline tiny --stage base"]
    assert base["seconds_to_empty"] is None
    farm.add_worker("w", stages=["base"])
    held = farm.start(job_id)
    assert finish_base(engine, held.batch_id, held.attempt, "l", "00", 1.0)
    refiner = queues(client)["tiny.refiner"]
    assert (refiner["waiting"], refiner["waiting_images"], refiner["workers"]) == (1, 2, 0)
    assert "No worker serves tiny.refiner." in refiner["hints"][0]
    assert "What leaves it goes on to tiny.refiner" in queues(client)["tiny.base"]["hints"][0]
    farm.add_worker("r", stages=["refiner"], draining_at=datetime.now(UTC))
    assert queues(client)["tiny.refiner"]["hints"] == ["The only worker is drained: resume it."]


def test_paused_jobs_and_test_runs_are_named(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w")
    for _ in range(3):
        pause_job(engine, farm.submit(2))
    testing = farm.submit(4)
    with engine.begin() as connection:
        connection.execute(update(Job).where(Job.id == testing).values(test_images=1))
        first = select(func.min(Batch.id)).where(Batch.job_id == testing).scalar_subquery()
        connection.execute(update(Batch).where(Batch.job_id == testing, Batch.id > first).values(held=True))
    base = queues(client)["tiny.base"]
    assert (base["waiting"], base["waiting_images"], base["paused_jobs"], base["held_jobs"]) == (1, 1, 3, 1)
    assert base["hints"] == ["3 jobs are paused.", "1 test run holds back the rest of its job."]


def test_metrics_have_no_gaps_and_add_up(client: FlaskClient, farm, engine: Engine, settings: Settings) -> None:
    farm.add_worker("w")
    now = datetime.now(UTC)
    minute(engine, 40, now=now, images=8, seconds=16, failures=1)
    minute(engine, 40, "v", now=now, images=8, seconds=48)
    minute(engine, 40, stage=Stage.REFINER, now=now, images=6, pictures=6, seconds=3)
    minute(engine, 600, images=5, pictures=5, seconds=5)
    farm.submit(3)
    record_queues(engine, settings.lease_seconds)
    hour = client.get("/api/v1/metrics").get_json()
    assert (hour["hours"], hour["step_seconds"], len(hour["start"])) == (1, 60, 60)
    assert {b - a for a, b in zip(hour["start"], hour["start"][1:], strict=False)} == {60}
    at = next(place for place, rate in enumerate(hour["pictures_per_minute"]) if rate)
    assert at in (18, 19)  # a minute may have begun since
    assert hour["pictures_per_minute"][at] == 6
    assert hour["seconds_per_image"]["base"][at] == 4.0
    assert hour["seconds_per_image"]["refiner"][at] == 0.5
    assert sum(hour["failures"]) == hour["failures"][at] == 1
    assert hour["seconds_per_image"]["base"][0] is None
    assert hour["waiting"]["base"][0] is None
    assert [depth for depth in hour["waiting"]["base"] if depth is not None] == [3]
    assert [depth for depth in hour["waiting"]["refiner"] if depth is not None] == [0]

    day = client.get("/api/v1/metrics?hours=24").get_json()
    assert len(day["start"]) == 288
    assert sum(rate * 5 for rate in day["pictures_per_minute"]) == pytest.approx(11)
    week = client.get("/api/v1/metrics?hours=168").get_json()
    assert len(week["start"]) == 336
    assert sum(rate * 30 for rate in week["pictures_per_minute"]) == pytest.approx(11)
    refused = client.get("/api/v1/metrics?hours=5")
    assert refused.status_code == 422
    assert "1, 24, 168" in refused.get_json()["errors"][0]["message"]


def test_queue_depth_is_the_mean_over_a_step_and_all_pipelines(client: FlaskClient, engine: Engine) -> None:
    step = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    with engine.begin() as connection:
        for minutes, waiting in ((0, 10), (1, 20)):
            for pipeline, more in (("tiny", 0), ("other", 5)):
                row = {"pipeline": pipeline, "stage": Stage.BASE, "running": 0, "oldest_seconds": 0}
                at = step + timedelta(minutes=minutes)
                connection.execute(insert(QueueMinute).values(minute=at, waiting=waiting + more, **row))
    day = client.get("/api/v1/metrics?hours=24").get_json()
    assert day["waiting"]["base"][day["start"].index(int(step.timestamp()))] == 35


@pytest.mark.parametrize(("hours", "rows"), [(1, 12), (24, 24), (168, 14)])
def test_plots_have_a_table_with_the_same_numbers(client: FlaskClient, engine: Engine, hours: int, rows: int) -> None:
    minute(engine, 1, images=60, pictures=60, seconds=90)
    text = client.get(f"/plots?hours={hours}").text
    assert text.count('<th scope="row">') == rows
    assert f"/api/v1/metrics?hours={hours}" in text
    assert "1.50" in text
    assert client.get(f"/fragments/plots?hours={hours}").text.count('<th scope="row">') == rows


def test_a_preview_is_shown_while_there_is_one_and_asking_counts_as_looking(
    client: FlaskClient, farm, settings: Settings
) -> None:
    board = ProgressBoard(settings)
    job_id = farm.submit(2)
    path = f"/api/v1/jobs/{job_id}/images/1/preview"
    assert client.get(path).status_code == 404
    assert board.is_watched(job_id)
    board.write_previews(job_id, {1: b"JPEG"})
    answer = client.get(path)
    assert (answer.data, answer.mimetype, answer.headers["Cache-Control"]) == (b"JPEG", "image/jpeg", "no-store")
    assert client.get(f"/api/v1/jobs/{job_id}/images/0/preview").status_code == 404


def test_only_images_that_are_being_rendered_have_previews(farm, engine: Engine, settings: Settings) -> None:
    from dashboard.queries.previews import previewed_images

    board = ProgressBoard(settings)
    job_id = farm.submit(6, batch_size=3)
    held = farm.start(job_id)
    board.write_previews(job_id, {0: b"x", 2: b"x", 5: b"x"})
    assert previewed_images(engine, board, job_id) == [0, 2]
    farm.finish(held)
    assert previewed_images(engine, board, job_id) == []


@pytest.mark.parametrize("path", ["/workers", "/queues", "/plots", "/api/v1/queues", "/api/v1/metrics?hours=168"])
def test_the_number_of_queries_does_not_grow(client: FlaskClient, farm, app: Flask, path: str) -> None:
    from dashboard.context import EXTENSION

    statements: list[str] = []
    event.listen(
        app.extensions[EXTENSION].engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )

    def count() -> int:
        statements.clear()
        assert client.get(path).status_code == 200
        return len(statements)

    farm.add_worker("w")
    count()  # the first one also notes when the token was used
    few = count()
    for number in range(5):
        farm.add_worker(f"w{number}")
        farm.start(farm.submit(3), worker_id=f"w{number}")
    assert count() == few <= 10


def test_user_text_cannot_break_the_pages(client: FlaskClient, farm) -> None:
    farm.add_worker("<i>/cpu/x", hostname="<script>alert(1)</script>", device_name="<b>", pipeline="<u>")
    for path in ("/workers", "/queues"):
        text = client.get(path).text
        assert "<script>alert" not in text
        assert "<u>" not in text


def test_a_killed_worker_shows_no_sign_of_life(client: FlaskClient, farm, engine: Engine) -> None:
    farm.add_worker("w")
    with engine.begin() as connection:
        connection.execute(update(Worker).values(heartbeat_at=func.now() - timedelta(minutes=5)))
    assert "no sign of life" in page(client, "/workers")
