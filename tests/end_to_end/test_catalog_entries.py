"""Entries of an operator's own catalog, through the running farm."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
from conformance import reference
from conformance.original_layout import write_single_file
from conformance.plain import expected
from PIL import Image
from running import running_farm

from farm.catalog import Catalog
from farm.formats import read_parameters
from farm.settings import Settings
from farm.spec import ImageParameters
from farm.states import Stage
from worker.pipelines import load
from worker.tiny import write_tiny_checkpoint
from worker.tiny_adapters import write_tiny_adapters
from worker.tuning import TUNING_FILE, Tuning

CATALOG = """
[pipelines.studio]
base = "{directory}/base.safetensors"
base_config = "{models}/tiny/base"
refiner = "{directory}/refiner.safetensors"
refiner_config = "{models}/tiny/refiner"
vae = "{models}/tiny/base/vae"
dtype = "float32"
vae_slicing = true

[pipelines.studio.defaults]
width = 192
height = 128
num_inference_steps = 6
refiner_split = 0.6
scheduler = "dpmpp_2m_karras"

[loras.house-style]
path = "{models}/tiny-adapters/tiny-warm.safetensors"
pipelines = ["studio"]
"""


@pytest.mark.usefixtures("engine")
def test_single_files_options_and_few_step_models(settings: Settings, tmp_path: Path, models_directory: Path) -> None:
    write_tiny_checkpoint(models_directory / "tiny")
    write_tiny_adapters(models_directory / "tiny-adapters", models_directory / "tiny")
    for part, kind in (
        ("base", diffusers.StableDiffusionXLPipeline),
        ("refiner", diffusers.StableDiffusionXLImg2ImgPipeline),
    ):
        pipe = reference.load_anew(kind, models_directory / "tiny" / part, False)
        write_single_file(pipe, tmp_path / f"{part}.safetensors")
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG.format(directory=tmp_path, models=models_directory))
    settings = Settings(**settings.model_dump(exclude_unset=True), catalog=catalog)
    _measured(settings, "studio", (192, 128), 3)
    workers = (["--device", "cpu", "--pipeline", name] for name in ("studio", "tiny-turbo"))
    with running_farm(settings, tmp_path, *workers) as farm:
        studio = farm.client.submit(["a fox", "an owl"], pipeline="studio", seed=1, batch_size=1)
        styled = farm.client.submit(["a fox"], pipeline="studio", seed=1, loras="house-style:0.8")
        turbo = farm.client.submit(["a fox"], pipeline="tiny-turbo", seed=1)
        # Workers tell what was fastest on their device, and new jobs follow it.
        (entry,) = (entry for entry in farm.client.pipelines() if entry["name"] == "studio")
        assert entry["batch_size"] == 3
        fields = {"images_per_prompt": 7, "pipeline": "studio"}
        assert farm.client.estimate(["a fox"], **fields).batch_count == 3
        seven = farm.client.submit(["a fox"], seed=1, steps=2, **fields)
        for job in (studio, styled, turbo, seven):
            assert farm.await_job(job.id)["state"] == "completed"
        for job in (studio, turbo):
            for path in job.download(tmp_path / str(job.id)):
                image = ImageParameters.model_validate(read_parameters(path.read_bytes())["parameters"])
                with Image.open(path) as picture:
                    wanted = expected(models_directory, image)
                    assert np.array_equal(np.asarray(picture), np.asarray(wanted)), image.pipeline
        # The few-step model's own defaults.
        assert (image.num_inference_steps, image.guidance_scale, image.scheduler) == (2, 0.0, "euler_a")
        plain, warm = (job.download(tmp_path / str(job.id))[0].read_bytes() for job in (studio, styled))
        assert plain != warm


def _measured(settings: Settings, name: str, size: tuple[int, int], images: int) -> None:
    """As if ``farm tune`` had found so many images to be fastest."""
    catalog = Catalog.load(settings.catalog, settings.models_directory)
    pipeline = load(catalog.get(name), settings.models_directory, "cpu", frozenset(Stage), catalog)
    for stage in Stage:
        Tuning(settings.models_directory / TUNING_FILE, pipeline).remember(stage, size, images)
