"""``farm worker``: one worker process per device, pinned before torch is imported; what dies is started again.

A killed worker's leases run out and its batches go back in line.
"""

import os
import sys
from collections import Counter
from collections.abc import Collection, Sequence

from farm.catalog import Catalog, Pipeline
from farm.database import open_database
from farm.errors import ConfigurationError
from farm.keeper import Child, Keeper
from farm.queues import count_queues
from farm.settings import Settings
from farm.states import Stage
from worker.devices import Device, cpu_threads, fits

#: glibc's allocator gives tensors back to the system after every operation and fetches them anew, page by page:
#: told to keep its memory, a CPU worker renders about a tenth faster. Other C libraries ignore this.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}


#: Until measurements tell better: of a machine's devices so many in a hundred begin with the refiner.
REFINERS_PERCENT = 20


def supervise(
    devices: Sequence[Device], stages: Sequence[Stage] | None, entry: Pipeline, flexible: Collection[str] = ()
) -> Keeper:
    """A keeper of one worker process per device, each serving those of ``stages`` that the pipeline has.

    Without ``stages`` one device serves both, several are split between them. ``flexible`` is what the leading
    producer may change later: ``stages``, ``pipeline``. Raises ConfigurationError when there is no such stage.
    """
    on_cpu = sum(device.name == "cpu" for device in devices)
    shares = [served_stages(stages, entry)] * len(devices) if stages is not None else first_split(len(devices), entry)
    return Keeper(
        [_child(device, on_cpu, served, entry.name, flexible) for device, served in zip(devices, shares, strict=True)]
    )


def first_pipeline(catalog: Catalog, settings: Settings, devices: Sequence[Device]) -> Pipeline:
    """The entry for which the most batches wait, of those that fit all devices; without any the setting's."""
    engine = open_database(settings)
    try:
        with engine.connect() as connection:
            queues = count_queues(connection)
    finally:
        engine.dispose()
    waiting: Counter[str] = Counter()
    for queue in queues:
        waiting[queue.pipeline] += queue.waiting
    fitting = {entry.name: entry for entry in catalog if all(fits(entry, device) for device in devices)}
    for name, _ in waiting.most_common():
        if name in fitting:
            return fitting[name]
    return catalog.get(settings.pipeline)


def first_split(devices: int, entry: Pipeline) -> list[list[Stage]]:
    """The stages that each of a machine's devices begins with."""
    if entry.refiner is None:
        return [[Stage.BASE]] * devices
    if devices == 1:
        return [[Stage.BASE, Stage.REFINER]]
    refiners = max(1, round(devices * REFINERS_PERCENT / 100))
    return [[Stage.BASE]] * (devices - refiners) + [[Stage.REFINER]] * refiners


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


def _child(device: Device, on_cpu: int, stages: Sequence[Stage], pipeline: str, flexible: Collection[str]) -> Child:
    command = [
        *(sys.executable, "-m", "worker.process"),
        *("--device", device.name),
        *("--stages", ",".join(stages)),
        *("--pipeline", pipeline),
        *(("--flexible", ",".join(sorted(flexible))) if flexible else ()),
    ]
    return Child(f"worker on {device.name}", command, environment_of(device, on_cpu))
