"""The form for a new job, as a browser without JavaScript and as our script use it."""

import io
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from conformance.cases import landscape, png
from flask.testing import FlaskClient
from PIL import Image
from sheets import workbook
from sqlalchemy import insert
from werkzeug.test import TestResponse

from dashboard.pages import again
from farm import people
from farm.models import RenderMinute
from farm.roles import Role
from farm.states import Stage

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202eevil"
TIMES = "\N{MULTIPLICATION SIGN}"
SCRIPT = {"HX-Request": "true"}
RowCounts = Callable[[], dict[str, int]]


class Page(HTMLParser):
    """What a browser would send of a page's form: names and values."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.options: dict[str, list[str]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._select = self._area = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        name = values.get("name") or ""
        if tag == "input" and name and values.get("type") not in ("file", "checkbox"):
            self.fields[name] = values.get("value") or ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in values:
            self.fields[self._select] = values.get("value") or ""
            self.options.setdefault(self._select, []).append(values.get("value") or "")
        elif tag == "textarea":
            self._area = name
            self.fields[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            # A browser leaves the first line feed of a text area out.
            self.fields[self._area] = self.fields[self._area].removeprefix("\n")
            self._area = ""
        elif tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.fields[self._area] += data


def send(client: FlaskClient, path: str, headers: dict[str, str] | None = None, **fields: Any) -> TestResponse:
    return client.post(path, data=fields, content_type="multipart/form-data", headers=headers)


def preview(client: FlaskClient, **fields: Any) -> str:
    answer = send(client, "/jobs/new/preview", SCRIPT, **fields)
    assert answer.status_code == 200, answer.text
    assert "<html" not in answer.text
    return answer.text


def file(data: bytes, name: str) -> tuple[io.BytesIO, str]:
    return io.BytesIO(data), name


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to have this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def images_of(client: FlaskClient, job_id: int) -> list[dict[str, Any]]:
    return client.get(f"/api/v1/jobs/{job_id}/images?limit=500").get_json()["images"]


def new_job(answer: TestResponse) -> int:
    assert answer.status_code == 303, answer.text
    return int(answer.headers["Location"].split("?")[0].rpartition("/")[2])


def test_a_preview_says_what_the_job_would_be_and_writes_nothing(client: FlaskClient, row_counts: RowCounts) -> None:
    text = preview(client, prompts="a fox\nan owl", images_per_prompt="3", size="256x512", sweep="steps: 5, 10")
    assert "<strong>12 pictures</strong>" in text
    assert f"2 prompts {TIMES} 2 {TIMES} steps {TIMES} 3 images per prompt" in text
    assert f"256{TIMES}512" in text
    assert "No measurement yet" in text
    assert not any(row_counts().values())


def test_errors_are_marked_in_their_cells(client: FlaskClient) -> None:
    text = preview(client, prompts="prompt,size\na,256x256\nb,250x256\n")
    page = Page(text)
    (cell,) = [values for tag, values in page.tags if tag == "td" and values.get("aria-invalid") == "true"]
    (message,) = [values for _, values in page.tags if values.get("id") == cell["aria-describedby"]]
    assert message["class"] == "wrong"
    assert "250 is not divisible by 8" in text
    assert "1 problem." in text


def test_the_preview_never_fails(client: FlaskClient) -> None:
    for fields in (
        {},
        {"prompts": ""},
        {"prompts": "a\0b"},
        {"prompts": "\ud83d", "format": "jsonl"},
        {"prompts": '{"prompt": "\\ud800"}', "format": "jsonl"},
        {"prompts": "a,b\n1,2,3", "format": "csv"},
        {"prompts": "a", "inputs": "[]"},
        {"prompts": "a", "inputs": "{", "each_picture": "image"},
        {"prompts": "a", "inputs": '{"x": 3}', "each_picture": "image"},
        {"prompts": "a", "sweep": "nothing", "inputs": '{"x": "y"}', "each_picture": "image"},
        {"prompts": "a", "column": "{", "columns_for": "x"},
    ):
        preview(client, **{name: value.encode("utf-8", "surrogatepass") for name, value in fields.items()})
    for data, name in ((b"\xff", "p.txt"), (b"PK", "p.xlsx"), (b"", "p.csv"), (b"x", "p.exe"), (b'"', "p.csv")):
        assert "bad" in preview(client, file=file(data, name))


def test_columns_are_said_and_never_guessed_in_silence(client: FlaskClient) -> None:
    sheet = workbook([["Caption", "CFG", "mood"], ["a fox", 7, "calm"]])
    text = preview(client, file=file(sheet, "a.xlsx"))
    assert "No column is the prompt" in text
    assert "a guess: please confirm" in text
    page = Page(text)
    assert page.options["column"] == ['{"Caption": "prompt"}', '{"CFG": "guidance_scale"}']
    # A guess that nobody confirmed is no answer.
    chosen = ['{"Caption": "prompt"}', '{"CFG": "guidance_scale"}', '{"mood": ""}']
    refused = send(client, "/jobs/new", file=file(sheet, "a.xlsx"), column=chosen)
    assert refused.status_code == 422
    digest = next(values["data-digest"] for _, values in page.tags if values.get("id") == "use-columns")
    text = preview(client, file=file(sheet, "a.xlsx"), column=chosen, columns_for=digest)
    assert "<strong>1 picture</strong>" in text
    job_id = new_job(send(client, "/jobs/new", file=file(sheet, "a.xlsx"), column=chosen, columns_for=digest))
    assert images_of(client, job_id)[0]["guidance_scale"] == 7


def test_without_javascript_a_file_stays_with_the_page_as_text(client: FlaskClient) -> None:
    sheet = workbook([["Caption", "CFG"], ["a fox, red", 7]])
    answer = send(client, "/jobs/new/preview", file=file(sheet, "a.xlsx"), num_inference_steps="12")
    page = Page(answer.text)
    assert page.fields["prompts"] == 'Caption,CFG\n"a fox, red",7\n'
    assert (page.fields["format"], page.fields["num_inference_steps"]) == ("csv", "12")
    button = next(values for tag, values in page.tags if tag == "button" and values.get("id") == "use-columns")
    chosen = page.options["column"]
    again = send(
        client,
        "/jobs/new/preview",
        prompts=page.fields["prompts"],
        format="csv",
        column=chosen,
        columns_for=button["value"],
    )
    fields = Page(again.text).fields
    assert fields["columns_for"] == button["value"]
    job = {"prompts": fields["prompts"], "format": "csv", "column": chosen, "columns_for": fields["columns_for"]}
    assert images_of(client, new_job(send(client, "/jobs/new", **job)))[0]["prompt"] == "a fox, red"


def test_hostile_prompts_stay_text_in_the_preview(client: FlaskClient) -> None:
    table = "prompt\tsteps\n" + HOSTILE + "\tmany\n" + "x" * 10_000 + "\t12\n"
    text = preview(client, prompts=table, format="tsv", name=HOSTILE)
    assert "<bdi>&lt;script&gt;" in text
    assert "x" * 161 not in text
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    text = preview(client, prompts=f"{HOSTILE}\tb\n1\t2\n", format="tsv")
    assert not [tag for tag, _ in Page(text).tags if tag in ("script", "img")]
    text = preview(client, prompts=HOSTILE, sweep="steps: 5, 10", templates="none")
    assert not [tag for tag, _ in Page(text).tags if tag in ("script", "img")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "is no picture"),
        (b"<!doctype html><script>alert(1)</script>", "is no picture"),
        (bomb(50_000, 50_000), "pixels"),
        (bomb(9_000, 9_000), "pixels"),
    ],
)
def test_what_only_poses_as_a_picture_is_refused_at_once(
    client: FlaskClient, row_counts: RowCounts, data: bytes, message: str
) -> None:
    started = time.process_time()
    answer = client.post("/api/v1/inputs", data=data, content_type="image/png")
    assert answer.status_code == 422
    assert message in answer.get_json()["errors"][0]["message"]
    answer = send(client, "/jobs/new", prompts="a", pictures_file=file(data, "../../a.png"))
    assert (answer.status_code, message in answer.text) == (422, True)
    answer = send(client, "/jobs/new/restore", restore_file=file(data, "a.png"))
    assert (answer.status_code, "cannot be restored from" in answer.text) == (422, True)
    assert time.process_time() - started < 5
    assert not any(row_counts().values())


def test_a_spreadsheet_that_is_a_bomb_is_refused_at_once(client: FlaskClient) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b"\0" * 2**20)
        # What it says of itself; more than this is never unpacked.
        archive.infolist()[0].file_size = 600 * 2**20
    started = time.process_time()
    assert "unpacks to more than" in preview(client, file=file(buffer.getvalue(), "a.xlsx"))
    assert time.process_time() - started < 5


def test_pictures_are_matched_by_name_and_the_unused_are_listed(client: FlaskClient) -> None:
    pictures = [file(png(landscape()), "a.png"), file(MiniPng.of(1), "../b.png")]
    answer = send(
        client, "/jobs/new/preview", prompts="prompt,image\na,a.png\nb,c.png\n", format="csv", pictures_file=pictures
    )
    assert "&#39;c.png&#39; was not uploaded" in answer.text
    inputs = Page(answer.text).fields["inputs"]
    assert set(json.loads(inputs)) == {"a.png", "../b.png"}
    text = preview(client, prompts="prompt,image\na,a.png\n", format="csv", inputs=inputs)
    assert "This picture is used by no row" in text
    assert "../b.png" in text
    text = preview(client, prompts="a\nb", inputs=inputs, each_picture="image", strength="0.9")
    assert "<strong>4 pictures</strong>" in text
    job_id = new_job(send(client, "/jobs/new", prompts="a\nb", inputs=inputs, each_picture="image", strength="0.9"))
    assert len({image["image"] for image in images_of(client, job_id)}) == 2


class MiniPng:
    @staticmethod
    def of(colour: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), (colour, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()


def test_presets_are_saved_loaded_and_deleted(client: FlaskClient) -> None:
    answer = send(
        client,
        "/jobs/new/presets",
        prompts="kept on the page",
        preset_name="  portraits ",
        size="256x512",
        refiner="no",
        name="not kept",
        file=file(b"", ""),
    )
    assert answer.status_code == 200
    assert "kept on the page" in answer.text
    (preset,) = client.get("/api/v1/presets").get_json()["presets"]
    assert preset["fields"] == {"size": "256x512", "refiner": "no"}
    assert (preset["name"], preset["shared"]) == ("portraits", False)
    page = Page(client.get(f"/jobs/new?preset={preset['id']}").text)
    assert (page.fields["size"], page.fields["refiner"], page.fields["prompts"]) == ("256x512", "no", "")
    fragment = send(client, f"/jobs/new/presets/{preset['id']}/delete", SCRIPT).text
    assert "Deleted the preset" in fragment
    assert "<html" not in fragment
    assert client.get("/api/v1/presets").get_json() == {"presets": []}
    assert client.get(f"/jobs/new?preset={preset['id']}").status_code == 404
    assert client.get(f"/jobs/new?preset={2**63}").status_code in (404, 422)


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "a\nb"])
def test_a_preset_that_cannot_be_is_refused_beside_its_field(client: FlaskClient, name: str) -> None:
    answer = send(client, "/jobs/new/presets", SCRIPT, preset_name=name, size="256x256")
    assert answer.status_code == 422
    assert 'id="wrong-preset_name"' in answer.text
    assert client.get("/api/v1/presets").get_json() == {"presets": []}


def test_presets_belong_to_their_owners(client: FlaskClient, stranger: FlaskClient, engine) -> None:
    other = people.add_user(engine, "other", Role.SUBMITTER)
    stranger.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {people.make_token(engine, other.user_id, 't')}"
    mine = client.post("/api/v1/presets", json={"name": "mine", "fields": {"steps": 3}}).get_json()
    ours = client.post("/api/v1/presets", json={"name": "ours", "fields": {"loras": [1, 2]}, "shared": True}).get_json()
    assert [one["name"] for one in stranger.get("/api/v1/presets").get_json()["presets"]] == ["ours"]
    assert stranger.delete(f"/api/v1/presets/{mine['id']}").status_code == 404
    assert stranger.delete(f"/api/v1/presets/{ours['id']}").status_code == 403
    assert send(stranger, f"/jobs/new/presets/{ours['id']}/delete").status_code == 403
    theirs = stranger.post("/api/v1/presets", json={"name": "t", "fields": {"eta": "1"}, "shared": True}).get_json()
    # Operators may tidy up, and a name is taken only by its owner.
    assert client.delete(f"/api/v1/presets/{theirs['id']}").status_code == 204
    assert client.delete(f"/api/v1/presets/{2**63}").status_code == 404
    again = client.post("/api/v1/presets", json={"name": "mine", "fields": {"steps": 4}}).get_json()
    assert (again["id"], again["fields"]) == (mine["id"], {"num_inference_steps": "4"})
    for body in (
        {},
        {"name": "x"},
        {"name": "x", "fields": {"prompts": "a"}},
        {"name": "x", "fields": {}},
        {"name": "x", "fields": {"eta": 1}, "shared": 3},
    ):
        assert client.post("/api/v1/presets", json=body).status_code == 422


AGAIN: list[tuple[str, dict[str, Any], str]] = [
    ("a fox\nan owl", {"images_per_prompt": "3", "seed": "5", "negative_prompt": "blurry"}, "txt"),
    ("a fox", {"refiner": "no", "size": "256x512", "name": "Foxes", "scheduler": "ddim", "eta": "0.5"}, "txt"),
    ("a {red|blue} fox", {"templates": "all", "sweep": "steps: 10, 20; guidance_scale: 3, 5"}, "jsonl"),
    ("prompt,steps,size,seed,negative_prompt\na,10,256x512,7,\nb,12,256x256,,bad\n", {"format": "csv"}, "jsonl"),
    ("prompt,refiner_split,refiner_strength\na,none,0.5\nb,0.6,\nc,none,\n", {"format": "csv"}, "jsonl"),
    ('{"prompt": "two\\nlines"}', {"format": "jsonl"}, "jsonl"),
    ("a\nb", {"refiner_strength": "0.4", "refiner_steps": "20", "output_format": "webp", "watermark": "false"}, "txt"),
    ("a", {"scheduler_options": '{"timestep_spacing": "trailing"}', "original_size": "512, 512"}, "txt"),
    ("a", {"timesteps": "999, 600, 300, 50", "refiner": "no"}, "txt"),
]


@pytest.mark.parametrize(("prompts", "fields", "expected"), AGAIN)
def test_a_job_is_submitted_again_as_it_was(
    client: FlaskClient, prompts: str, fields: dict[str, str], expected: str
) -> None:
    first = new_job(send(client, "/jobs/new", prompts=prompts, **fields))
    page = Page(client.get(f"/jobs/new?from_job={first}").text)
    assert page.fields["format"] == expected
    second = new_job(send(client, "/jobs/new", **{name: page.fields[name] for name in page.fields if name != "column"}))
    hidden = {"url", "job_id", "file_url", "thumbnail_url", "created_at", "download_name", "index"}

    def parameters(job_id: int) -> list[dict[str, Any]]:
        return [{key: value for key, value in one.items() if key not in hidden} for one in images_of(client, job_id)]

    assert parameters(second) == parameters(first)
    # One picture of it, too.
    page = Page(client.get(f"/jobs/new?from_job={first}&image={len(parameters(first)) - 1}").text)
    third = new_job(send(client, "/jobs/new", **page.fields))
    assert parameters(third) == parameters(first)[-1:]


def test_the_pictures_of_a_job_keep_their_names(client: FlaskClient) -> None:
    ref = client.post("/api/v1/inputs", data=png(landscape())).get_json()["input"]
    inputs = json.dumps({"house.png": ref})
    rows = "prompt,image,strength\na,house.png,0.5\nb,house.png,0.7\n"
    first = new_job(send(client, "/jobs/new", prompts=rows, format="csv", inputs=inputs))
    page = Page(client.get(f"/jobs/new?from_job={first}").text)
    assert "house.png" in page.fields["prompts"]
    second = new_job(send(client, "/jobs/new", **page.fields))
    assert [(one["image"], one["strength"], one["width"]) for one in images_of(client, second)] == [
        (one["image"], one["strength"], one["width"]) for one in images_of(client, first)
    ]


def test_rows_of_a_huge_job_come_as_a_file(client: FlaskClient, farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "MAX_ROWS", 5)
    monkeypatch.setattr(again, "_PAGE", 4)
    job_id = farm.submit(10, size="256x512")
    text = client.get(f"/jobs/new?from_job={job_id}").text
    assert "more than fit here" in text
    assert f'href="/jobs/{job_id}/rows.jsonl"' in text
    assert Page(text).fields["prompts"] == ""
    answer = client.get(f"/jobs/{job_id}/rows.jsonl")
    assert "attachment" in answer.headers["Content-Disposition"]
    assert [json.loads(line)["prompt"] for line in answer.text.splitlines()] == [f"prompt {n}" for n in range(10)]
    fields = Page(text).fields
    del fields["prompts"]
    second = new_job(send(client, "/jobs/new", **fields, file=file(answer.data, "rows.jsonl")))
    assert [(one["prompt"], one["seed"]) for one in images_of(client, second)] == [
        (one["prompt"], one["seed"]) for one in images_of(client, job_id)
    ]
    assert client.get("/jobs/99/rows.jsonl").status_code == 404
    assert client.get("/jobs/new?from_job=99").status_code == 404


def test_lists_of_words_have_a_page(client: FlaskClient) -> None:
    assert "There is no list yet" in client.get("/words").text
    assert send(client, "/words", name="animal", words="fox\nowl\n").status_code == 303
    assert send(client, "/words", name="", words="", file=file(b"red\nblue", "Colour.txt")).status_code == 303
    text = client.get("/words").text
    assert "__animal__" in text
    assert "__colour__" in text
    assert Page(client.get("/words?edit=animal").text).fields["words"] == "fox\nowl"
    assert "<strong>4 pictures</strong>" in preview(client, prompts="a __colour__ __animal__", templates="all")
    assert send(client, "/words", name="Not This", words="x").status_code == 422
    assert send(client, "/words", name="a", words=HOSTILE).status_code == 303
    assert "<script>alert" not in client.get("/words").text
    assert send(client, "/words", name="b", words="", file=file(b"\xff", "b.txt")).status_code == 422
    assert client.post("/words/delete", data={"name": "animal"}).status_code == 303
    assert client.get("/words?edit=animal").status_code == 404


def test_a_test_run_is_shown_and_the_rest_let_through(client: FlaskClient, farm) -> None:
    job_id = new_job(
        send(client, "/jobs/new", prompts="\n".join("abcdefgh"), test_run="4", refiner="no", batch_size="1")
    )
    assert "0 of 4 rendered, 4 wait." in client.get(f"/jobs/{job_id}").text
    farm.render(job_id, 4)
    fragment = client.get(f"/jobs/{job_id}/fragments/status").text
    assert "4 rendered, 4 wait" in fragment
    assert "Render the rest" in client.get(f"/jobs/{job_id}").text
    assert client.get(f"/api/v1/jobs/{job_id}").get_json()["test_images"] == 4
    assert client.post("/jobs/act", data={"action": "resume", "job": job_id}).status_code == 303
    assert "Test run" not in client.get(f"/jobs/{job_id}/fragments/status").text
    farm.render(job_id, 4)
    assert client.get(f"/api/v1/jobs/{job_id}").get_json()["state"] == "completed"


def test_only_who_may_steer_lets_the_rest_through(client: FlaskClient, stranger: FlaskClient, engine, farm) -> None:
    job_id = farm.submit(8, test_run=4)
    other = people.add_user(engine, "other", Role.SUBMITTER)
    stranger.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {people.make_token(engine, other.user_id, 't')}"
    click = {"action": "resume", "job": job_id, "from": "job"}
    assert "not yours" in stranger.post("/jobs/act", data=click, follow_redirects=True).text
    assert "Render the rest" not in stranger.get(f"/jobs/{job_id}").text
    assert "Render the rest" in client.get(f"/jobs/{job_id}").text


def test_a_preview_tells_how_long_it_takes_once_that_was_measured(client: FlaskClient, engine, farm) -> None:
    with engine.begin() as connection:
        measured = {"minute": datetime.now(UTC), "worker_id": "w", "pipeline": "tiny", "seconds": 20.0}
        connection.execute(
            insert(RenderMinute), [measured | {"stage": stage, "megapixel_steps": 10.0} for stage in Stage]
        )
    # Ten steps of a megapixel.
    fields = {"prompts": "a", "size": "1000x1000", "num_inference_steps": "10"}
    assert "About 20 s of a device&#39;s time; no worker serves this pipeline now." in preview(
        client, **fields
    ).replace("'", "&#39;")
    farm.add_worker()
    farm.add_worker("v")
    assert "done in about 10 s" in preview(client, **fields)
    answer = client.post("/api/v1/estimate", json={"prompts": ["a"], "size": "1000x1000", "steps": 10}).get_json()
    assert (answer["device_seconds"], answer["seconds_until_done"], answer["workers"]) == (20, 10, 2)


def test_the_pages_of_job_and_picture_lead_to_the_form(client: FlaskClient, farm) -> None:
    job_id = farm.complete(2)
    assert f"/jobs/new?from_job={job_id}&amp;image=1" in client.get(f"/jobs/{job_id}/images/1").text
    assert f'/jobs/new?from_job={job_id}"' in client.get(f"/jobs/{job_id}").text
    assert client.post(f"/jobs/new/presets/{10**19 - 1}/delete").status_code == 404


def test_the_api_estimates(client: FlaskClient, row_counts: RowCounts) -> None:
    body = {"prompts": ["a", "b"], "images_per_prompt": 3, "batch_size": 2}
    assert client.post("/api/v1/estimate", json=body).get_json() == {
        "image_count": 6,
        "batch_count": 3,
        "device_seconds": None,
        "seconds_until_done": None,
        "workers": 0,
    }
    part = file(b"prompt\na\n", "a.csv")
    assert client.post("/api/v1/estimate", data={"file": part}).get_json()["image_count"] == 1
    refused = client.post("/api/v1/estimate", json={"prompts": ["a"], "size": "1x1"})
    assert refused.status_code == 422
    assert refused.get_json()["errors"]
    assert client.post("/api/v1/estimate", data="x", content_type="text/plain").status_code == 415
    assert not any(row_counts().values())
