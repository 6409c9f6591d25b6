"""How the device is: memory, health, how much of the time it computes. Read at every heartbeat, so it must be cheap."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pynvml
import torch

from farm.claims import Vitals
from worker.health import Health

logger = logging.getLogger(__name__)


class BusyClock:
    """Counts the time that the device's thread computes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy_since: float | None = None
        self._counted = 0.0
        self._read_at = time.monotonic()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The device's thread computes for the time of the context."""
        with self._lock:
            self._busy_since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._count(time.monotonic())
                self._busy_since = None

    def share(self) -> float:
        """Share of the time since the last call that was computed, 0 to 1."""
        with self._lock:
            now = time.monotonic()
            self._count(now)
            passed = now - self._read_at
            share = self._counted / passed if passed > 0 else 0.0
            self._read_at, self._counted = now, 0.0
        return min(share, 1.0)

    def _count(self, now: float) -> None:
        if self._busy_since is not None:
            # What came before the last reading was counted there.
            self._counted += now - max(self._busy_since, self._read_at)
            self._busy_since = now


class Gauge:
    """Reads one device; ``torch_name`` is ``cuda:0`` in a process that is pinned to a GPU."""

    def __init__(self, torch_name: str, clock: BusyClock) -> None:
        self._clock = clock
        self._process = psutil.Process()
        self._handle = _nvml_handle(torch_name) if torch_name.startswith("cuda") else None
        self._health = None if self._handle is None else Health(self._handle)
        self._is_cpu = torch_name == "cpu"

    def read(self) -> Vitals:
        """How the device is now; what the driver does not tell is left out."""
        share = self._clock.share()
        if self._is_cpu:
            return Vitals(self._process.memory_info().rss, psutil.virtual_memory().total, share)
        if self._handle is None or self._health is None:
            return Vitals(utilisation=share)
        health = self._health.read()
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        except pynvml.NVMLError as error:
            logger.debug("the driver does not tell of memory: %s", error)
            return Vitals(utilisation=share, **health)
        try:
            share = pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100
        except pynvml.NVMLError as error:
            # Parts of a GPU (MIG) have memory of their own, but no utilisation: what our thread computes stands for it.
            logger.debug("the driver does not tell of utilisation: %s", error)
        return Vitals(int(memory.used), int(memory.total), share, **health)


def _nvml_handle(torch_name: str) -> object | None:
    """The driver's handle of what this process sees as ``torch_name``; None without one.

    By its UUID: CUDA and the driver may number GPUs in different orders, and CUDA_VISIBLE_DEVICES numbers them anew.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    try:
        pynvml.nvmlInit()
        if visible.startswith("MIG-"):
            return pynvml.nvmlDeviceGetHandleByUUID(visible.split(",")[0])  # type: ignore[no-any-return]
        uuid = str(torch.cuda.get_device_properties(torch_name).uuid)
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")  # type: ignore[no-any-return]
    except (pynvml.NVMLError, RuntimeError, AttributeError) as error:
        logger.warning("memory, utilisation and health of the GPU stay unknown: %s", error)
        return None
