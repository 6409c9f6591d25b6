"""Pictures as a ZIP: everything that was asked for, as it lies in the store, in little memory, or no ZIP at all."""

import csv
import io
import json
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient
from rows import keys_of
from sqlalchemy import Engine, update
from waitress.server import create_server

from dashboard.archive import MAX_AT_ONCE, cell, stream_archive
from dashboard.queries.pictures import every_image
from farm import people
from farm.marks import Change, mark_image
from farm.models import Image
from farm.picture_filter import PictureFilter
from farm.storage import sha256

HOSTILE = "=cmd|' /C calc'!A0"


def opened(data: bytes) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    return archive


def table(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    text = archive.read("manifest.csv").decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def lines(archive: zipfile.ZipFile) -> list[dict]:
    return [json.loads(line) for line in archive.read("manifest.jsonl").decode().splitlines()]


def test_a_whole_job_with_its_manifest(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = farm.submit(["a fox", HOSTILE, "@x", "plain\nlines \u202eevil"], seed=7)
    farm.render(job_id, 2)
    farm.fail(farm.start(job_id), "=broken")
    mark_image(engine, job_id, 0, Change(rating=1, tags=("=tag", "b")))
    response = client.get(f"/api/v1/jobs/{job_id}/archive")
    assert (response.status_code, response.mimetype) == (200, "application/zip")
    assert "Content-Length" not in response.headers
    assert response.headers["Content-Disposition"] == f'attachment; filename="job-{job_id}.zip"'
    archive = opened(response.data)
    names = ["000000_seed7.png", "000001_seed8.png", "manifest.csv", "manifest.jsonl"]
    assert archive.namelist() == names
    assert [archive.read(name) for name in names[:2]] == [farm.square(seed, "PNG") for seed in (7, 8)]
    assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    rows, objects = table(archive), lines(archive)
    assert [row["name"] for row in rows] == [*names[:2], "", ""]
    assert [row["state"] for row in rows] == ["completed", "completed", "failed", "pending"]
    assert rows[0]["sha256"] == sha256(farm.square(7, "PNG"))
    assert (rows[0]["rating"], rows[0]["seed"]) == ("1", "7")
    # A spreadsheet must not take a prompt for a formula; JSON has it as it was written.
    assert [row["prompt"] for row in rows] == ["a fox", f"'{HOSTILE}", "'@x", "plain\nlines \u202eevil"]
    assert rows[2]["error"] == "'=broken"
    assert objects[1]["prompt"] == HOSTILE
    assert objects[0]["tags"] == ["=tag", "b"]
    assert objects[0].keys() == set(rows[0])


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\ta", "\ra"])
def test_cells_are_no_formulas(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell(-1) == "-1"
    assert cell(None) == ""


@pytest.mark.parametrize(
    ("query", "indices"),
    [("images=0,2-3", [0, 2, 3]), ("mark=starred", [1]), ("q=fox+-red", [2]), ("seed=9", [2]), ("state=failed", [])],
)
def test_a_part_of_a_job(client: FlaskClient, farm, engine: Engine, query: str, indices: list[int]) -> None:
    job_id = farm.submit(["a red fox", "an owl", "a fox", "an elk"])
    farm.render(job_id, 4)
    mark_image(engine, job_id, 1, Change(rating=1))
    archive = opened(client.get(f"/api/v1/jobs/{job_id}/archive?{query}").data)
    assert [row["index"] for row in lines(archive)] == indices
    assert len(archive.namelist()) == len(indices) + 2


def test_long_choices_are_sent_in_the_body_and_by_form(client: FlaskClient, farm) -> None:
    job_id = farm.complete(5)
    many = {"images": [0, 4, *range(100_000, 150_000)]}
    archive = opened(client.post(f"/api/v1/jobs/{job_id}/archive", json=many).data)
    assert [row["index"] for row in lines(archive)] == [0, 4]
    archive = opened(client.post(f"/jobs/{job_id}/archive", data={"images": "1-2"}).data)
    assert [row["index"] for row in lines(archive)] == [1, 2]
    archive = opened(client.post(f"/jobs/{job_id}/archive", data={"picture": [f"{job_id}:3"]}).data)
    assert [row["index"] for row in lines(archive)] == [3]
    assert client.post(f"/jobs/{job_id}/archive", data={}).status_code == 422


def test_pictures_of_several_jobs_get_folders(client: FlaskClient, farm) -> None:
    first, second = farm.complete(2), farm.complete(1, seed=99)
    chosen = {"picture": [f"{second}:0", f"{first}:1"]}
    archive = opened(client.post("/pictures/archive", data=chosen).data)
    assert archive.namelist()[:2] == [f"job-{first}/000001_seed8.png", f"job-{second}/000000_seed99.png"]


@pytest.mark.parametrize("query", ["images=x", "mark=best", "seed=-1", "q=%00"])
def test_unreadable_choices_are_refused(client: FlaskClient, farm, query: str) -> None:
    assert client.get(f"/api/v1/jobs/{farm.submit()}/archive?{query}").status_code == 422


def test_without_such_a_job_there_is_none(client: FlaskClient) -> None:
    assert client.get("/api/v1/jobs/5/archive").status_code == 404


def test_only_so_many_at_once(client: FlaskClient, farm) -> None:
    job_id = farm.complete(1)
    waiting = [client.get(f"/api/v1/jobs/{job_id}/archive", buffered=False) for _ in range(MAX_AT_ONCE)]
    refused = client.get(f"/api/v1/jobs/{job_id}/archive")
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    for response in waiting:
        response.close()
    assert client.get(f"/api/v1/jobs/{job_id}/archive").status_code == 200


def test_memory_stays_small_however_much_is_sent(farm, engine: Engine) -> None:
    job_id = farm.submit(75)
    farm.render(job_id, 75)
    data = bytes(4 * 2**20)
    for index in range(75):
        farm.store.put(keys_of(engine, job_id, index)[0], data, "image/png")
    with engine.begin() as connection:
        connection.execute(update(Image).values(sha256=sha256(data)))
    tracemalloc.start()
    try:
        sent = sum(len(chunk) for chunk in stream_archive(farm.store, every_image(engine, job_id, PictureFilter())))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent > 300 * 2**20
    assert peak < 60 * 2**20


@pytest.fixture
def serve(app: Flask) -> Iterator[Callable[[], str]]:
    """The application behind the server that it runs on."""
    server = create_server(app, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield lambda: f"http://127.0.0.1:{server.effective_port}"
    server.close()
    thread.join(10)


def test_a_picture_that_is_gone_ends_the_connection(farm, engine: Engine, serve: Callable[[], str]) -> None:
    job_id = farm.complete(40)
    farm.store.delete(keys_of(engine, job_id, 30)[0])
    token = people.make_token(engine, people.local_user(engine).user_id, "tests")
    headers = {"Authorization": f"Bearer {token}"}
    got = bytearray()
    with httpx.stream("GET", f"{serve()}/api/v1/jobs/{job_id}/archive", headers=headers) as response:
        assert response.status_code == 200
        assert "Content-Length" not in response.headers
        with pytest.raises(httpx.RemoteProtocolError):
            got.extend(chunk for part in response.iter_bytes() for chunk in part)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(got))


def test_it_begins_before_the_last_picture_is_read(farm, engine: Engine) -> None:
    job_id = farm.complete(40)
    read: list[str] = []

    class Watched:
        def get(self, key: str) -> bytes:
            read.append(key)
            return farm.store.get(key)

    parts = stream_archive(Watched(), every_image(engine, job_id, PictureFilter()))  # type: ignore[arg-type]
    assert next(parts).startswith(b"PK")
    assert len(read) < 10
    parts.close()
