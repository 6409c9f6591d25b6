"""The running farm against plain diffusers: Celery workers in processes of their own, latents through S3 over HTTP."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conformance.cases import LANDSCAPE, MASK, landscape, mask
from conformance.plain import expected
from PIL import Image
from running import running_farm
from sqlalchemy import Engine, select, text

from farm.models import Image as ImageRow
from farm.schedulers import SchedulerOptions
from farm.settings import Settings
from farm.spec import ImageParameters
from farm.storage import open_store, sha256

#: What the rows call the pictures that go in: the name under which they are stored, and the picture.
FILES = {"image": (LANDSCAPE, "house.png", landscape()), "mask_image": (MASK, "mask.png", mask())}
IMAGE = {"image": "house.png", "strength": 0.7}
INPAINT = {"image": "house.png", "mask_image": "mask.png", "strength": 0.9}
SMALL = {"size": "192x128", "steps": 6, "refiner_split": 0.6}
#: Every capability goes through the whole farm once.
ROWS = [
    {"prompt": "a red fox in the snow", "steps": 8, "refiner_split": 0.8},
    {"prompt": "an owl at night, watercolor", "steps": 13, "refiner_split": 0.5, "seed": 2**40},
    {
        "prompt": "a 狐 in Füchsen",
        "steps": 5,
        "refiner_split": 0.7,
        "size": "320x192",
        "negative_prompt": "blurry",
        "watermark": False,
    },
    {"prompt": "the base alone", "steps": 6, "refiner_split": None, "negative_prompt": ""},
    {"prompt": "a castle", "steps": 20, "refiner_split": 0.9, "guidance_scale": 7.5},
    {"prompt": "what else it takes", **SMALL, "guidance_rescale": 0.7, "clip_skip": 1},
    {
        "prompt": "explicit timesteps",
        "size": "192x128",
        "timesteps": [999, 800, 600, 300, 100, 1],
        "refiner_split": 0.6,
    },
    {"prompt": "image to image", **SMALL, **IMAGE},
    {"prompt": "image to image by the base alone", **SMALL, **IMAGE, "refiner_split": None},
    {"prompt": "inpainting", **SMALL, **INPAINT},
    {"prompt": "the second way", "size": "192x128", "steps": 6, "refiner_strength": 0.5, "refiner_steps": 4},
    {"prompt": "inpainting, the second way", "size": "192x128", "steps": 6, **INPAINT, "refiner_strength": 0.5},
    {"prompt": "conditions", **SMALL, "original_size": [512, 768], "target_size": [96, 128], "aesthetic_score": 9.0},
    {"prompt": "two", **SMALL, "prompt_2": "oil", "negative_prompt": "dark", "negative_prompt_2": "photograph"},
    {"prompt": "a scheduler", **SMALL, "scheduler": "dpmpp_2m_karras", "scheduler_options": {"solver_order": 3}},
    {"prompt": "a scheduler with a noise of its own", **SMALL, "scheduler": "dpmpp_sde"},
    {"prompt": "a fox", **SMALL, "loras": ["tiny-warm:0.8", "tiny-cool"]},
    {"prompt": "a <glyph> fox", **SMALL, "textual_inversions": ["tiny-glyph"]},
    {"prompt": "a castle", **SMALL, "controlnet": "tiny-edges", "control_image": "house.png"},
    {"prompt": "a castle", **SMALL, "ip_adapter": "tiny-look", "ip_adapter_image": "house.png"},
]


@pytest.mark.usefixtures("engine")
def test_pictures_of_the_running_farm_are_those_of_plain_diffusers(
    settings: Settings, engine: Engine, s3_server: str, bucket: str, tmp_path: Path, models_directory: Path
) -> None:
    settings = Settings(
        **settings.model_dump(exclude_unset=True), store_url=f"s3://{bucket}/farm", s3_endpoint_url=s3_server
    )
    # One worker per stage, so that latents must travel.
    base, refiner = (["--device", "cpu", "--stage", stage] for stage in ("base", "refiner"))
    with running_farm(settings, tmp_path, base, refiner) as farm:
        one_by_one = submit_rows(farm, tmp_path, batch_size=1)
        batched = farm.client.submit([f"prompt {n}" for n in range(6)], seed=100, steps=7, batch_size=6)
        for job_id in (one_by_one, batched.id):
            assert farm.await_job(job_id)["state"] == "completed"
        assert batched.receipt["batch_count"] == 1

        singles = pictures(farm, one_by_one, tmp_path / "singles")
        together = pictures(farm, batched.id, tmp_path / "together")

        for number, (row, picture) in enumerate(zip(ROWS, singles, strict=True)):
            image = parameters_of(picture)
            assert image.model_dump().items() >= expected_parameters(row, 42 + number).items()
            assert np.array_equal(np.asarray(picture), np.asarray(expected(models_directory, image))), row
            assert picture.text["parameters"].startswith(row["prompt"])
        for number, picture in enumerate(together):
            image = parameters_of(picture)
            assert (image.prompt, image.seed) == (f"prompt {number}", 100 + number)
            difference = np.asarray(picture, int) - np.asarray(expected(models_directory, image), int)
            assert np.abs(difference).max() <= 1

    store = open_store(settings)
    with engine.connect() as connection:
        rows = connection.execute(select(ImageRow.image_key, ImageRow.thumbnail_key, ImageRow.sha256)).all()
        workers = connection.execute(text("SELECT count(DISTINCT worker_id) FROM batches")).scalar_one()
    assert workers == 2
    for image_key, thumbnail_key, digest in rows:
        assert sha256(store.get(image_key)) == digest
        assert max(Image.open(BytesIO(store.get(thumbnail_key))).size) <= 320
    # Latents are removed once the refiner has committed.
    listed = store._client.list_objects_v2(Bucket=bucket)["Contents"]  # type: ignore[attr-defined]
    inputs = [item["Key"] for item in listed if "/inputs/" in item["Key"]]
    # Many rows share them, and each is stored once.
    assert len(inputs) == len(FILES)
    assert len(listed) == 2 * len(rows) + len(inputs)


def submit_rows(farm, tmp_path: Path, batch_size: int) -> int:
    file = tmp_path / "rows.jsonl"
    for _, name, picture in FILES.values():
        picture.save(tmp_path / name)
    file.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    return farm.client.submit(file=file, seed=42, batch_size=batch_size).id


def pictures(farm, job_id: int, directory: Path) -> list[Image.Image]:
    found = []
    for path in farm.client.job(job_id).download(directory):
        with Image.open(path) as picture:
            picture.load()
            found.append(picture)
    return found


def parameters_of(picture: Image.Image) -> ImageParameters:
    return ImageParameters.model_validate(json.loads(picture.text["farm"])["parameters"])


def expected_parameters(row: dict, seed: int) -> dict:
    """What the row says, under the names of the spec."""
    said = {"seed": seed} | row
    if "size" in said:
        said["width"], said["height"] = map(int, said.pop("size").split("x"))
    for name, value in list(said.items()):
        if name == "steps":
            said["num_inference_steps"] = said.pop(name)
        elif name == "control_image":
            said[name] = (LANDSCAPE,)
            said["controlnet"] = (row["controlnet"],)
        elif name == "ip_adapter_image":
            said[name] = LANDSCAPE
        elif name == "loras":
            said[name] = ({"name": "tiny-warm", "weight": 0.8}, {"name": "tiny-cool", "weight": 1.0})
        elif name == "textual_inversions":
            said[name] = tuple(value)
        elif name in FILES:
            said[name] = FILES[name][0]
        elif name.endswith("_size") or name == "timesteps":
            said[name] = tuple(value)
        elif name == "scheduler_options":
            said[name] = {**dict.fromkeys(SchedulerOptions.model_fields), **value}
    return said
