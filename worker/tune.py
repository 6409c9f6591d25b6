"""``farm tune``: has each kind of device of this machine measured, by a process that is pinned to one of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.catalog import Pipeline
from farm.errors import ConfigurationError
from farm.parent import KEEPER_VARIABLE
from farm.states import Stage
from worker.devices import Device, one_of_each_kind
from worker.supervisor import environment_of

Size = tuple[int, int]


@dataclass
class Tuned:
    """What was measured of one stage and size on one kind of device."""

    device: str
    """Its name, as the driver says it."""
    stage: str
    width: int
    height: int
    seconds_per_image: dict[int, float] = field(default_factory=dict)
    """By the number of images in a call."""
    out_of_memory_at: int | None = None
    best: int = 0


def tune_devices(
    devices: Sequence[Device],
    stages: Sequence[Stage],
    entry: Pipeline,
    sizes: Sequence[Size],
    up_to: int,
    on_line: Callable[[str], object],
) -> list[Tuned]:
    """Measure one device of each kind, one after the other; ``on_line`` is told how far it is.

    ``up_to`` is the most images that a call is given. Raises ConfigurationError when a process fails (it has said why).
    """
    tuned: dict[tuple[Any, ...], Tuned] = {}
    for device in one_of_each_kind(devices):
        command = [sys.executable, "-m", "worker.tune_process", "--device", device.name, "--pipeline", entry.name]
        command += ["--up-to", str(up_to)]
        for stage in stages:
            command += ["--stage", stage.value]
        for width, height in sizes:
            command += ["--size", f"{width}x{height}"]
        on_line(f"loading {entry.name} to {device.name}")
        environment = {**os.environ, **environment_of(device, 1), KEEPER_VARIABLE: str(os.getpid())}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            for line in process.stdout:
                said = json.loads(line)
                place = (said["device"], said["stage"], said["width"], said["height"])
                _note(tuned.setdefault(place, Tuned(*place)), said)
                on_line("{device}, {stage} of {width}x{height}".format(**said))
        if process.returncode != 0:
            raise ConfigurationError(f"{device.name} could not be measured; the reason is above.")
    return [*tuned.values()]


def _note(tuned: Tuned, said: dict[str, Any]) -> None:
    if "best" in said:
        tuned.best = said["best"]
    elif said["seconds"] is None:
        tuned.out_of_memory_at = said["images"]
    else:
        tuned.seconds_per_image[said["images"]] = said["seconds"]
