"""The running farm against plain diffusers: Celery workers in processes of their own, latents through S3 over HTTP."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conformance import reference
from PIL import Image
from running import running_farm
from sqlalchemy import Engine, select, text

from farm.models import Image as ImageRow
from farm.settings import Settings
from farm.storage import open_store, sha256

ROWS = [
    {"prompt": "a red fox in the snow", "steps": 8, "refiner_split": 0.8},
    {"prompt": "an owl at night, watercolor", "steps": 13, "refiner_split": 0.5, "seed": 2**40},
    {"prompt": "a 狐 in Füchsen", "steps": 5, "refiner_split": 0.7, "size": "320x192", "negative_prompt": "blurry"},
    {"prompt": "the base alone", "steps": 6, "refiner_split": None, "negative_prompt": ""},
    {"prompt": "a castle", "steps": 20, "refiner_split": 0.9, "guidance_scale": 7.5},
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
        batched = farm.client.submit([f"prompt {n}" for n in range(6)], {"seed": 100, "steps": 7, "batch_size": 6})
        for job_id in (one_by_one, batched["id"]):
            assert farm.await_job(job_id)["state"] == "completed"
        assert batched["batch_count"] == 1

        singles = pictures(farm, one_by_one, tmp_path / "singles")
        together = pictures(farm, batched["id"], tmp_path / "together")

        for number, (row, picture) in enumerate(zip(ROWS, singles, strict=True)):
            expected = plain(models_directory, row, row.get("seed", 42 + number))
            assert np.array_equal(np.asarray(picture), np.asarray(expected)), row
            stored = json.loads(picture.text["farm"])["parameters"]
            assert stored["prompt"] == row["prompt"]
            assert stored["seed"] == row.get("seed", 42 + number)
            assert stored["refiner_split"] == row["refiner_split"]
            assert picture.text["parameters"].splitlines()[0] == row["prompt"]
        for number, picture in enumerate(together):
            row = {"prompt": f"prompt {number}", "steps": 7, "refiner_split": 0.8}
            expected = plain(models_directory, row, 100 + number)
            assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 1

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
    assert len(listed) == 2 * len(rows)


def submit_rows(farm, tmp_path: Path, batch_size: int) -> int:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    receipt: dict = farm.client.submit_file(file, {"seed": 42, "batch_size": batch_size})
    return receipt["id"]


def pictures(farm, job_id: int, directory: Path) -> list[Image.Image]:
    return [Image.open(path) for path in farm.client.download(job_id, directory)]


def plain(models_directory: Path, row: dict, seed: int) -> Image.Image:
    width, height = map(int, row.get("size", "256x256").split("x"))
    return reference.render(
        models_directory / "tiny",
        row["prompt"],
        seed=seed,
        steps=row["steps"],
        split=row["refiner_split"],
        width=width,
        height=height,
        guidance_scale=row.get("guidance_scale", 5.0),
        negative_prompt=row.get("negative_prompt"),
    )
