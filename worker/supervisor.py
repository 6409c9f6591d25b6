"""``farm worker``: one worker process per device, pinned before torch is imported; what dies is started again.

A killed worker's leases run out and its batches go back in line.
"""

import os
import sys
from collections.abc import Sequence

from farm.catalog import Pipeline
from farm.errors import ConfigurationError
from farm.keeper import Child, Keeper
from farm.states import Stage
from worker.devices import Device, cpu_threads

#: glibc's allocator gives tensors back to the system after every operation and fetches them anew, page by page:
#: told to keep its memory, a CPU worker renders about a tenth faster. Other C libraries ignore this.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}


def supervise(devices: Sequence[Device], stages: Sequence[Stage], entry: Pipeline) -> Keeper:
    """A keeper of one worker process per device, each serving those of ``stages`` that the pipeline has.

    Raises ConfigurationError when it has none of them.
    """
    served = served_stages(stages, entry)
    on_cpu = sum(device.name == "cpu" for device in devices)
    return Keeper([_child(device, on_cpu, served, entry.name) for device in devices])


def served_stages(stages: Sequence[Stage], entry: Pipeline) -> list[Stage]:
    """Those of ``stages`` that the pipeline has. Raises ConfigurationError when it has none of them."""
    served = [stage for stage in stages if stage is Stage.BASE or entry.refiner is not None]
    if not served:
        raise ConfigurationError(f"Pipeline {entry.name!r} has no refiner; serve its base with --stage base.")
    return served


def environment_of(device: Device, on_cpu: int) -> dict[str, str]:
    """What a process on this device gets in its environment, on a machine with so many processes on the CPU."""
    # Without torchvision transformers warns, at each start, of image processors that nothing here uses.
    environment = {"TRANSFORMERS_VERBOSITY": "error", **device.environment}
    if device.name == "cpu":
        # Whoever starts several supervisors on one machine shares out its cores himself.
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(cpu_threads(on_cpu)))
        environment |= KEEP_MEMORY
    return environment


def _child(device: Device, on_cpu: int, stages: Sequence[Stage], pipeline: str) -> Child:
    command = [
        *(sys.executable, "-m", "worker.process"),
        *("--device", device.name),
        *("--stages", ",".join(stages)),
        *("--pipeline", pipeline),
    ]
    return Child(f"worker on {device.name}", command, environment_of(device, on_cpu))
