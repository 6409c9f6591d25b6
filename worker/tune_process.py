"""Measures one device, pinned by ``farm tune``: ``python -m worker.tune_process``. It tells its findings by line."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from farm.catalog import Catalog
from farm.logs import set_up_logging
from farm.parent import exit_with_keeper
from farm.settings import get_settings
from farm.states import Stage
from worker.devices import Device


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the pipeline, measure each stage and size, and remember the best."""
    parser = argparse.ArgumentParser(prog="python -m worker.tune_process", description=__doc__)
    parser.add_argument("--device", required=True, type=Device)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--stage", required=True, type=Stage, action="append")
    parser.add_argument("--size", required=True, type=_size, action="append")
    parser.add_argument("--up-to", required=True, type=int)
    options = parser.parse_args(arguments)
    exit_with_keeper()
    settings = get_settings()
    set_up_logging(settings)
    # Only here, in a process that is pinned.
    from worker.pipelines import load
    from worker.tuning import TUNING_FILE, Tuning, tune

    catalog = Catalog.load(settings.catalog, settings.models_directory)
    entry = catalog.get(options.pipeline)
    stages = frozenset(options.stage)
    pipeline = load(entry, settings.models_directory, options.device.torch_name, stages, catalog)
    tuning = Tuning(settings.models_directory / TUNING_FILE, pipeline)
    for stage in options.stage:
        for size in options.size:
            place = {
                "device": pipeline.fingerprint["device"],
                "stage": stage.value,
                "width": size[0],
                "height": size[1],
            }
            best = tune(pipeline, stage, size, partial(_tell_measured, place), options.up_to)
            tuning.remember(stage, size, best)
            _tell(place | {"best": best})


def _tell_measured(place: dict[str, Any], images: int, seconds: float | None) -> None:
    _tell(place | {"images": images, "seconds": seconds})


def _tell(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


if __name__ == "__main__":
    main()
