"""How healthy a GPU is, as its driver tells: heat, power, memory errors, and critical errors by number (Xid)."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

#: Of the errors that wait to be told, so many are read at a time: a heartbeat must not be held up by a broken GPU.
MAX_EVENTS = 16


class Health:
    """Reads one GPU by the driver's handle. Parts of a GPU (MIG) are as healthy as the whole."""

    def __init__(self, handle: object) -> None:
        self._gpu = self._ask("the GPU of a part", lambda: _whole(handle)) or handle
        self._events = self._ask("critical errors", self._listen)
        self._xid_errors = 0
        self._last_xid: int | None = None

    def read(self) -> dict[str, Any]:
        """Those members of ``farm.claims.Vitals`` that the driver tells; the others are None."""
        gpu = self._gpu
        milliwatts = self._ask("power", lambda: pynvml.nvmlDeviceGetPowerUsage(gpu))
        self._hear()
        return {
            "temperature_celsius": self._ask(
                "temperature", lambda: float(pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU))
            ),
            "power_watts": None if milliwatts is None else milliwatts / 1000,
            "ecc_errors": self._ask(
                "memory errors",
                lambda: int(
                    pynvml.nvmlDeviceGetTotalEccErrors(
                        gpu, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
                    )
                ),
            ),
            "xid_errors": None if self._events is None else self._xid_errors,
            "last_xid": self._last_xid,
        }

    def _listen(self) -> object:
        events = pynvml.nvmlEventSetCreate()
        pynvml.nvmlDeviceRegisterEvents(self._gpu, pynvml.nvmlEventTypeXidCriticalError, events)
        return events

    def _hear(self) -> None:
        """Count the critical errors since the last reading."""
        if self._events is None:
            return
        try:
            for _ in range(MAX_EVENTS):
                # Without waiting: it says by its time-out that there is none.
                self._last_xid = int(pynvml.nvmlEventSetWait_v2(self._events, 0).eventData)
                self._xid_errors += 1
                logger.error("the driver tells of a critical error of the GPU: Xid %d", self._last_xid)
        except pynvml.NVMLError_Timeout:
            pass
        except pynvml.NVMLError as error:
            logger.debug("the driver does not tell of critical errors: %s", error)

    @staticmethod
    def _ask(what: str, question: Callable[[], Value]) -> Value | None:
        try:
            return question()
        except pynvml.NVMLError as error:
            # Not every GPU has everything: consumer cards have no ECC, virtual ones tell of no power.
            logger.debug("the driver does not tell of %s: %s", what, error)
            return None


def _whole(handle: object) -> object:
    if not pynvml.nvmlDeviceIsMigDeviceHandle(handle):
        return handle
    return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
