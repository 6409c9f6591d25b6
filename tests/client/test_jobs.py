"""Jobs and their pictures through the client, on a running farm."""

import hashlib
import json
import logging
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from running import RunningFarm

from farm.spec import ImageParameters
from producer import (
    AsyncFarm,
    ConflictError,
    Farm,
    GridError,
    Job,
    NoPictureError,
    NotFoundError,
    TableError,
)

SMALL = {"steps": 2, "size": "64x64", "seed": 7, "refiner_split": None}
#: For which this farm has no worker: such jobs wait.
NOBODY = {"pipeline": "sdxl-1.0"}
BROKEN = '("a fox", "an owl").blend(0.5)'


@pytest.fixture(scope="module")
def done(running: RunningFarm) -> Job:
    """A job of six pictures, all finished."""
    sweep = {"guidance_scale": [2, 4, 6]}
    return running.client.submit(["a red fox", "an owl"], sweep=sweep, name="done", batch_size=2, **SMALL).wait()


def test_a_finished_job_tells_everything(farm: Farm, done: Job) -> None:
    assert (done.state, done.has_ended, done.name) == ("completed", True, "done")
    assert (done.counts.total, done.counts.completed, done.counts.pending) == (6, 6, 0)
    assert done.progress == 1
    assert done.receipt["seed"] == 7
    assert repr(done) == f"<Job {done.id} 'done': completed, 6/6 done>"
    assert farm.job(done.id).data["spec"] == done.data["spec"]
    assert done.id in [job.id for job in farm.jobs(state="completed")]
    images = list(done.images())
    assert [image.index for image in images] == list(range(6))
    assert [(image.prompt, image.parameters["guidance_scale"], image.seed) for image in images] == [
        (prompt, scale, seed) for prompt, seed in (("a red fox", 7), ("an owl", 8)) for scale in (2, 4, 6)
    ]
    assert set(images[0].parameters) == set(ImageParameters.model_fields)
    assert done.image(3).prompt == "an owl"
    with pytest.raises(NotFoundError):
        done.image(6)


def test_a_picture_as_everything_that_it_can_be(done: Job, tmp_path: Path) -> None:
    image = done.image(0)
    assert image.pil().size == (64, 64)
    assert json.loads(image.pil().text["farm"])["parameters"]["prompt"] == "a red fox"
    assert image.thumbnail().format == "WEBP"
    assert hashlib.sha256(image.bytes()).hexdigest() == image.sha256
    assert image.save(tmp_path) == tmp_path / "000000_seed7.png"
    assert image.save(tmp_path / "fox.png").read_bytes() == image.bytes()
    with pytest.raises(NoPictureError, match="delivered as png; submit it with output_format='latents'"):
        image.latents()


def test_a_download_takes_up_where_it_stopped(done: Job, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "pictures"
    paths = done.download(directory, parallel=3)
    assert [path.name for path in paths] == [f"00000{n}_seed{7 + n // 3}.png" for n in range(6)]
    whole = [path.read_bytes() for path in paths]
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    paths[2].write_bytes(whole[2][:100])
    (directory / "000003_seed8.png.part").write_bytes(b"cut off")
    assert done.download(directory) == paths
    assert [path.read_bytes() for path in paths] == whole
    assert paths[0].stat().st_mtime_ns == kept
    with zipfile.ZipFile(done.archive(tmp_path / "all.zip")) as archive:
        assert [archive.read(path.name) for path in paths] == whole


def test_grids_in_order_and_by_values(done: Job) -> None:
    assert done.grid(columns=6, cell=32, labels=False).size == (6 * 40 + 8, 40 + 8)
    by_values = done.grid(["guidance_scale", "prompt"], cell=32, labels=False)
    assert by_values.size == (3 * 40 + 8, 2 * 40 + 8)
    assert np.array_equal(
        np.asarray(by_values.crop((8, 8, 40, 40))),
        np.asarray(done.grid(images="0", cell=32, labels=False).crop((8, 8, 40, 40))),
    )
    with pytest.raises(GridError, match="did you mean guidance_scale"):
        done.grid("gidance_scale")


def test_images_come_as_they_end_each_once(farm: Farm) -> None:
    prompts = [*(f"picture {n}" for n in range(4)), BROKEN]
    job = farm.submit(prompts, batch_size=1, prompt_syntax="compel", **{**SMALL, "steps": 100})
    states_at_arrival = []
    seen = Counter()
    for image in job.images(as_completed=True):
        states_at_arrival.append(job.refresh().state)
        seen[image.index, image.state] += 1
        if image.state == "completed":
            assert image.pil().size == (64, 64)
    assert "running" in states_at_arrival[:1]
    assert seen == {(n, "completed" if n < 4 else "failed"): 1 for n in range(5)}
    assert job.refresh().state == "failed"
    (reason,) = job.errors
    failed = job.image(4)
    with pytest.raises(NoPictureError, match="is failed .* and has no picture"):
        failed.pil()
    assert failed.error == reason
    # All is there already; and whoever has enough may stop.
    assert [image.index for image in job.images("failed", as_completed=True)] == [4]
    assert next(iter(job.images("completed", as_completed=True))).index == 0


def test_the_farm_tells_what_happens_without_being_asked(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "httpx")
    job = farm.submit(["a fox"], images_per_prompt=24, batch_size=8, **{**SMALL, "steps": 20})
    assert sorted(image.index for image in job.images(as_completed=True)) == list(range(24))
    asked = [record.getMessage() for record in caplog.records]
    assert sum("/events" in line for line in asked) == 1
    # Three batches end, and those that end while a page is read are on it.
    assert sum("/images?" in line for line in asked) <= 4


def test_a_test_run_ends_the_waiting_and_goes_on_when_asked(farm: Farm) -> None:
    job = farm.submit([f"picture {n}" for n in range(4)], test_run=1, **SMALL)
    assert len(list(job.images(as_completed=True))) == 1
    job.wait(timeout=240)
    assert (job.has_ended, job.test_run_ended, job.counts.completed) == (True, True, 1)
    assert job.resume().wait(timeout=240).counts.completed == 4


def test_steering(farm: Farm) -> None:
    job = farm.submit(["a fox"], images_per_prompt=3, **NOBODY)
    assert job.change(priority=90, name="urgent").priority == 90
    assert job.pause().is_paused
    assert not job.resume().is_paused
    with pytest.raises(TimeoutError, match=f"Job {job.id} is queued after 0.5 s; it goes on"):
        job.wait(timeout=0.5)
    assert job.cancel().state == "cancelled"
    assert job.cancel().state == "cancelled"
    assert [image.state for image in job.images(as_completed=True)] == ["cancelled"] * 3
    with pytest.raises(ConflictError, match="cannot be paused"):
        job.pause()
    assert farm.job(job.id).name == "urgent"
    job.delete()
    with pytest.raises(NotFoundError):
        job.refresh()
    unfinished = farm.submit(["a fox"], **NOBODY)
    with pytest.raises(ConflictError):
        unfinished.delete()
    unfinished.cancel()


def test_latents_are_arrays(farm: Farm) -> None:
    job = farm.submit(["a fox"], output_format="latents", **SMALL).wait()
    image = job.image(0)
    latents = image.latents()
    assert latents.shape == (4, 8, 8)
    assert np.isfinite(latents).all()
    # There is something to look at, too.
    assert image.pil().format == "WEBP"


TABLE = [{"animal": "fox", "weight": 1.5}, {"animal": "owl", "weight": 2.5}]


@pytest.mark.parametrize("make", [list, pd.DataFrame, pl.DataFrame])
def test_a_table_becomes_pictures_and_finds_back(farm: Farm, make: Callable[[Any], Any]) -> None:
    table = make(TABLE)
    job = farm.map(
        lambda row: {"prompt": f"a {row['animal']}", "guidance_scale": row["weight"]},
        table,
        images_per_prompt=2,
        sweep={"num_inference_steps": [1, 2]},
        size="64x64",
        refiner_split=None,
        seed=1,
    ).wait()
    for image in job.images():
        assert image.prompt == f"a {image.row['animal']}"
        assert image.parameters["guidance_scale"] == image.row["weight"]
    found = job.table()
    assert type(found) is type(table)
    lines = found if isinstance(found, list) else found.to_dict("records") if make is pd.DataFrame else found.to_dicts()
    assert [line["animal"] for line in lines] == ["fox"] * 4 + ["owl"] * 4
    assert [line["image"] for line in lines] == list(range(8))
    assert {line["state"] for line in lines} == {"completed"}
    assert lines[7]["file"] == job.image(7).download_name
    with pytest.raises(TableError, match="has just made"):
        farm.job(job.id).table()


def test_a_table_that_cannot_be_mapped_says_where(farm: Farm) -> None:
    with pytest.raises(KeyError) as missing:
        farm.map(lambda row: f"a {row['colour']}", TABLE)
    assert "row 0 of the table: {'animal': 'fox', 'weight': 1.5}" in missing.value.__notes__[0]
    with pytest.raises(TableError, match="Row 1 of the table became None"):
        farm.map(lambda row: {"fox": "a fox"}.get(row["animal"]), TABLE)
    for wrong, message in (([], "no rows"), (["fox"], "pandas or polars data frame, or a list of dicts")):
        with pytest.raises(TableError, match=message):
            farm.map(str, wrong)
    with pytest.raises(TableError, match="With templates not every row"):
        farm.map(lambda row: "{a|b}", TABLE, templates="all")


def test_async_programs_do_many_things_at_once(running: RunningFarm, tmp_path: Path) -> None:
    async def render(farm: AsyncFarm, prompt: str, found: dict[str, list[Path]]) -> None:
        job = await farm.submit([prompt], images_per_prompt=2, **SMALL)
        arrived = [image async for image in job.images(as_completed=True)]
        assert sorted(image.index for image in arrived) == [0, 1]
        assert (await arrived[0].pil()).size == (64, 64)
        await job.wait()
        found[prompt] = await job.download(tmp_path / prompt)

    async def program() -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        async with AsyncFarm(running.url, running.token) as farm, anyio.create_task_group() as group:
            for prompt in ("a fox", "an owl"):
                group.start_soon(render, farm, prompt, found)
        return found

    found = anyio.run(program)
    for paths in found.values():
        for path in paths:
            with Image.open(path) as picture:
                assert picture.size == (64, 64)
    assert len(found["a fox"]) == len(found["an owl"]) == 2


def test_one_farm_serves_many_threads(farm: Farm, done: Job) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: farm.job(done.id).counts.completed, range(40))) == {6}
