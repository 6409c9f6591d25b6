"""Which devices this machine has, found without initialising CUDA."""

import logging
import os
import platform
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import pynvml

from farm.catalog import Pipeline
from farm.errors import ConfigurationError
from farm.settings import Settings
from farm.tags import read_tags

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """One device: ``cuda:N`` by the driver's numbering, ``mps`` (Apple's GPU), or ``cpu``."""

    name: str

    @property
    def environment(self) -> dict[str, str]:
        """What pins a child process to this device, set before it imports torch."""
        return {"CUDA_VISIBLE_DEVICES": self.name.removeprefix("cuda:") if self.name.startswith("cuda:") else ""}

    @property
    def torch_name(self) -> str:
        """What torch calls the device in a process that is pinned to it: it sees no other."""
        return "cuda:0" if self.name.startswith("cuda:") else self.name


def discover() -> list[Device]:
    """All CUDA devices, or an Apple computer's GPU, or the CPU where there are none."""
    if (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        return [Device("mps")]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        # No driver, or none that can be reached: this is a CPU machine.
        return [Device("cpu")]
    try:
        count = pynvml.nvmlDeviceGetCount()
    finally:
        pynvml.nvmlShutdown()
    return [Device(f"cuda:{number}") for number in range(count)] or [Device("cpu")]


def memory_of(device: Device) -> int | None:
    """Bytes of memory of a device, or of the machine where it has none of its own; None if the driver does not tell."""
    if not device.name.startswith("cuda:"):
        return int(psutil.virtual_memory().total)
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.name.removeprefix("cuda:")))
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError as error:
        logger.warning("the driver does not tell the memory of %s: %s", device.name, error)
        return None


def fits(entry: Pipeline, device: Device) -> bool:
    """Whether a pipeline fits a device, as far as its catalog entry says what it needs."""
    memory = memory_of(device)
    return entry.vram is None or memory is None or memory >= entry.vram * 2**30


def one_of_each_kind(devices: Sequence[Device]) -> list[Device]:
    """The first device of each name that the driver tells."""
    kinds: dict[str, Device] = {}
    for device in devices:
        kinds.setdefault(_kind(device), device)
    return [*kinds.values()]


def _kind(device: Device) -> str:
    if not device.name.startswith("cuda:"):
        return device.name
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.name.removeprefix("cuda:")))
        return str(pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError:
        # Whatever is the matter, the process that loads a pipeline there will say it.
        return device.name


def parse(text: str) -> list[Device]:
    """Devices of ``auto``, ``cpu``, ``cpu,cpu``, ``mps`` or ``cuda:0,cuda:1``; raises ConfigurationError."""
    if text.strip() == "auto":
        return discover()
    devices = []
    for name in (part.strip() for part in text.split(",")):
        number = name.removeprefix("cuda:")
        if name not in ("cpu", "mps") and (number == name or not number.isdigit()):
            raise ConfigurationError(f"{name!r} is no device; write auto, cpu, cuda:0 or a list such as cuda:0,cuda:1")
        devices.append(Device(name))
    return devices


def cpu_threads(cpu_workers: int) -> int:
    """Threads for each of so many CPU workers: together they use the machine, and do not fight for it."""
    return max(1, len(os.sched_getaffinity(0)) // max(cpu_workers, 1))


def tags_of(device: Device, settings: Settings) -> list[str]:
    """Tags of a device's worker: the machine's, and what can be told of the device (``vram`` in GiB, rounded)."""
    tags = {*read_tags(settings.worker_tags), f"host={hostname()}", f"device={device.name.partition(':')[0]}"}
    if device.name.startswith("cuda:") and (memory := memory_of(device)) is not None:
        tags.add(f"vram={round(memory / 2**30)}")
    return sorted(tags)


def hostname() -> str:
    """This machine's name."""
    return socket.gethostname()
