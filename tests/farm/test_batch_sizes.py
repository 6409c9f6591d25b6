"""How large batches get: by job, catalog or measurement."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from farm.batch_sizes import BatchSizes, find_batch_sizes, read_measured, write_measured
from farm.catalog import Catalog
from farm.models import Worker
from farm.spec import ImageParameters
from farm.states import Stage
from farm.transitions import register_worker

SDXL = Catalog.load().get("sdxl-1.0")
MEASURED = {Stage.BASE: {(1024, 1024): 8, (512, 512): 24}, Stage.REFINER: {(1024, 1024): 12}}


def image(width: int = 1024, height: int = 1024, **fields: Any) -> ImageParameters:
    shared = {"num_inference_steps": 40, "guidance_scale": 5.0, "refiner_split": None}
    return ImageParameters(pipeline="sdxl-1.0", prompt="a", seed=0, width=width, height=height, **shared | fields)


def test_a_batch_is_as_large_as_the_stage_takes_that_takes_most() -> None:
    sizes = BatchSizes(None, MEASURED)
    assert sizes.of_batch(image()) == 8
    assert sizes.of_batch(image(refiner_split=0.8)) == 12
    assert sizes.of_batch(image(512, 512)) == 24


@pytest.mark.parametrize(
    ("width", "height", "images"),
    [(1024, 512, 12), (832, 1216, 8), (2048, 2048, 2), (4096, 4096, 1), (256, 256, 64), (640, 640, 15)],
)
def test_a_size_that_was_not_measured_gets_as_many_pixels_in_a_call(width: int, height: int, images: int) -> None:
    assert BatchSizes(None, MEASURED).of_call(Stage.BASE, width, height) == images


def test_what_is_fixed_counts_alone() -> None:
    assert BatchSizes(3, MEASURED).of_batch(image()) == 3
    assert BatchSizes(3, MEASURED).best(Stage.BASE, 1024, 1024) is None
    assert BatchSizes().of_batch(image()) == 4


def test_written_and_read_again_sizes_are_the_same() -> None:
    assert read_measured(write_measured(MEASURED)) == MEASURED


def test_of_all_workers_the_largest_counts_even_of_those_that_sleep(engine: Engine) -> None:
    for name, pipeline, base in (("a", "sdxl-1.0", 8), ("b", "sdxl-1.0", 16), ("c", "tiny", 64), ("d", "sdxl-1.0", 32)):
        register_worker(
            engine,
            Worker(
                id=name,
                hostname="h",
                process_id=1,
                device="cuda:0",
                device_name="a device",
                pipeline=pipeline,
                stages=["base"],
                batch_sizes={"base": {"1024x1024": base}},
            ),
        )
    with engine.begin() as connection:
        connection.execute(text("UPDATE workers SET stopped_at = now(), heartbeat_at = now() - interval '1 day'"))
        connection.execute(text("UPDATE workers SET heartbeat_at = now() - interval '8 days' WHERE id = 'd'"))
    assert find_batch_sizes(engine, SDXL).of_batch(image()) == 16
    assert find_batch_sizes(engine, SDXL, 5).of_batch(image()) == 5
    fixed = SDXL.model_copy(update={"batch_size": 6})
    assert find_batch_sizes(engine, fixed).of_batch(image()) == 6
