"""A recipe renders the same picture again: what it says is submitted for real, and plans the same parameters."""

import json
import os
import shlex
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from farm.catalog import Catalog
from farm.spec import ImageParameters
from producer.commands import submitting
from producer.expand import InputSize, plan_job
from producer.intake import Intake, Row
from producer.recipes import as_command, as_json, as_python

REF = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
HOSTILE = "--help \"it's\" $(rm -rf /) `id` \\ <b>;&| \u202egnp\u202c\nsecond line\ttab =cmd|' /C calc'!A0 🦊"

#: Submissions whose pictures are to be rendered again.
CASES: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "a red fox"},
    "hostile": {"prompt": HOSTILE, "negative_prompt": "-x 'y'", "prompt_2": HOSTILE},
    "none": {"prompt": "none", "negative_prompt": "none", "prompt_2": "none", "negative_prompt_2": "none"},
    "empty negative": {"prompt": "fox", "negative_prompt": ""},
    "a list or an object": {"prompt": '["a", {"b": 1}]', "negative_prompt": "{}"},
    "base alone": {"prompt": "fox", "refiner_split": None, "num_inference_steps": 12, "guidance_scale": 0.1 + 0.2},
    "refiner strength": {"prompt": "fox", "refiner_strength": 0.3, "refiner_steps": 25},
    "timesteps": {"prompt": "fox", "timesteps": [999, 500, 100, 10], "scheduler": "ddpm", "refiner_split": None},
    "sigmas": {"prompt": "fox", "sigmas": [14.6, 3.8, 1.0, 0.0], "scheduler": "euler", "refiner_split": None},
    "scheduler": {"prompt": "fox", "scheduler": "dpmpp_2m", "scheduler_options": {"use_karras_sigmas": True}},
    "options of the own": {"prompt": "fox", "scheduler_options": {"timestep_spacing": "trailing"}},
    "image": {"prompt": "fox", "image": REF, "strength": 0.55, "size": "256x128"},
    "inpaint": {"prompt": "fox", "image": REF, "mask_image": OTHER, "padding_mask_crop": 8, "refiner_split": None},
    "conditioning": {
        "prompt": "fox",
        "original_size": "512x768",
        "crops_coords_top_left": [0, 8],
        "aesthetic_score": 7,
    },
    "output": {"prompt": "fox", "output_format": "webp", "output_quality": 70, "watermark": False, "size": "256x320"},
    "guidance": {"prompt": "(fox)1.2", "prompt_syntax": "compel", "guidance_rescale": 0.7, "clip_skip": 2},
    "large seed": {"prompt": "fox", "seed": 2**63 - 1},
}


def plan(catalog: Catalog, fields: Mapping[str, Any], rows: list[dict[str, Any]]) -> list[ImageParameters]:
    intake = Intake([Row(row) for row in rows])
    sizes = {REF: InputSize(640, 480), OTHER: InputSize(640, 480)}
    return plan_job(catalog, "tiny", fields, intake, lambda _: sizes).images


def original(catalog: Catalog, name: str) -> ImageParameters:
    fields = dict(CASES[name])
    prompt = fields.pop("prompt")
    (image,) = plan(catalog, {"seed": 77, **fields}, [{"prompt": prompt}])
    return image


def stored(image: ImageParameters) -> dict[str, Any]:
    """As the dashboard reads it from its two tables."""
    shared = json.loads(image.shared().model_dump_json(exclude_none=True))
    own = {"prompt": image.prompt, "negative_prompt": image.negative_prompt, "seed": image.seed}
    return {**dict.fromkeys(ImageParameters.model_fields), **shared, **image.own(), **own}


def planned(catalog: Catalog, body: Mapping[str, Any]) -> ImageParameters:
    fields = json.loads(json.dumps(body))
    prompts = fields.pop("prompts")
    (image,) = plan(catalog, fields, [{"prompt": prompt} for prompt in prompts])
    return image


JOB = {
    **{"id": 1, "name": "", "owner": "", "pipeline": "tiny", "priority": 50, "state": "completed", "paused": False},
    "images": {"total": 1, "completed": 1, "failed": 0, "cancelled": 0, "pending": 0, "removed": 0},
    **{"progress": 1.0, "seconds_left": None, "test_images": None, "errors": []},
}
RECEIPT = {"id": 1, "image_count": 1, "batch_count": 1, "seed": 0, "ignored_columns": [], "test_images": None}


@pytest.fixture(scope="module")
def listener() -> Iterator[ThreadingHTTPServer]:
    """Answers like a farm that completes every job at once, and keeps what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, JOB)

        def do_POST(self) -> None:
            server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))  # type: ignore[attr-defined]
            self._answer(201, RECEIPT)

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sent(listener: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the client sends to the farm."""
    listener.bodies = []  # type: ignore[attr-defined]
    monkeypatch.setenv("FARM_URL", f"http://127.0.0.1:{listener.server_port}")
    return listener.bodies  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CASES)
def test_the_json_plans_the_same_image(catalog: Catalog, name: str) -> None:
    image = original(catalog, name)
    assert planned(catalog, as_json(stored(image))) == image


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_plans_the_same_image(catalog: Catalog, name: str, sent: list[dict[str, Any]]) -> None:
    image = original(catalog, name)
    words = shlex.split(as_command(stored(image)))
    assert words[:2] == ["farm", "submit"]
    app = typer.Typer()
    app.command()(submitting.submit)
    result = CliRunner().invoke(app, words[2:])
    assert result.exit_code == 0, result.output
    assert planned(catalog, sent[0]) == image


@pytest.mark.parametrize("name", CASES)
def test_the_python_plans_the_same_image(catalog: Catalog, name: str, sent: list[dict[str, Any]]) -> None:
    image = original(catalog, name)
    exec(compile(as_python(stored(image), os.environ["FARM_URL"]), "recipe", "exec"), {})
    assert planned(catalog, sent[0]) == image


def test_it_stays_the_same_when_the_catalog_gets_other_defaults(catalog: Catalog) -> None:
    image = original(catalog, "base alone")
    pipeline = catalog.get("tiny")
    changed = pipeline.defaults.model_copy(update={"guidance_scale": 9.0, "clip_skip": 2, "guidance_rescale": 0.5})
    other = Catalog([pipeline.model_copy(update={"defaults": changed})])
    assert other.get("tiny").defaults.clip_skip == 2
    assert planned(other, as_json(stored(image))) == image


def test_a_shell_reads_the_command_as_it_is_meant(catalog: Catalog) -> None:
    assert f"--prompt={HOSTILE}" in shlex.split(as_command(stored(original(catalog, "hostile"))))
