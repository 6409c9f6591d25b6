"""GPUs, as the NVIDIA driver tells of them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeVar

from farm.doctor.findings import Finding, error, ok, size, warning

CHECK = "gpu"
#: Below so many degrees of where a GPU slows itself down it is warm, and no more.
MARGIN_CELSIUS = 3
#: SDXL in half precision, with room to compute.
WANTED_BYTES = 10 * 2**30

Value = TypeVar("Value")


@dataclass(frozen=True)
class Card:
    """One GPU; None where the driver does not tell."""

    index: int
    name: str
    memory_free: int
    memory_total: int
    celsius: int | None = None
    slowdown_celsius: int | None = None
    uncorrected_errors: int | None = None
    """Errors of its memory since the driver was loaded that ECC could not correct."""
    rows_pending: bool = False
    """Damaged memory that it will leave out when it is next reset."""
    rows_failed: bool = False
    """Damaged memory for which it has no replacement left."""
    others: tuple[str, ...] = ()
    """Processes that compute on it."""


def check_gpus() -> Iterator[Finding]:
    """All GPUs of this machine."""
    try:
        import pynvml
    except ModuleNotFoundError:
        yield ok(CHECK, "not looked at: this machine is no worker (pip install 'sdxl-farm[worker]')")
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        yield ok(CHECK, "no NVIDIA driver here: workers render on the CPU")
        return
    except pynvml.NVMLError as refused:
        yield error(
            CHECK,
            f"the NVIDIA driver does not answer: {refused}",
            "Run nvidia-smi: if it fails too, restart the machine (after an update of the driver it has to).",
        )
        return
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion()) // 1000
        cards = [_read(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as refused:
        yield error(CHECK, f"the NVIDIA driver failed: {refused}", "Look into dmesg, and restart the machine.")
        return
    finally:
        pynvml.nvmlShutdown()
    for card in cards:
        yield from findings_of(card, driver)
    if cards:
        yield from torch_fits(cuda)


def findings_of(card: Card, driver: str) -> Iterator[Finding]:
    """What is to be said of one GPU."""
    named = f"cuda:{card.index} {card.name}"
    warm = "" if card.celsius is None else f", {card.celsius} °C"
    free = f"{size(card.memory_free)} of {size(card.memory_total)} free"
    yield ok(CHECK, f"{named}: {free}{warm}, driver {driver}")
    if card.memory_free < min(WANTED_BYTES, card.memory_total // 2):
        users = ", ".join(card.others) or "processes that this user does not see"
        yield warning(
            CHECK, f"{named}: only {free}; used by {users}", "End what else uses it, or give workers another device."
        )
    if card.celsius is not None and card.slowdown_celsius and card.celsius >= card.slowdown_celsius - MARGIN_CELSIUS:
        yield warning(
            CHECK,
            f"{named} is {card.celsius} °C warm, and slows down at {card.slowdown_celsius} °C",
            "Look after its fans and the air around it.",
        )
    if card.rows_failed:
        yield error(CHECK, f"{named}: damaged memory can no longer be replaced", "Have the card replaced.")
    elif card.rows_pending or card.uncorrected_errors:
        yield warning(
            CHECK,
            f"{named}: {card.uncorrected_errors or 'some'} errors of its memory could not be corrected",
            "Drain its worker, and restart the machine: the card then leaves the damaged memory out.",
        )


def cuda_of_torch() -> str | None:
    """The CUDA that torch was built for, as 13.0; None for a build without.

    Raises PackageNotFoundError where there is no torch.
    """
    # Importing torch would take seconds.
    file = Path(str(distribution("torch").locate_file("torch/version.py")))
    found = re.search(r"^cuda\b[^=]*= '([\d.]+)'", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[1]


def torch_fits(driver_cuda: int) -> Iterator[Finding]:
    """Whether torch was built for GPUs, and for this driver; ``driver_cuda`` is the major version that it knows."""
    try:
        built_for = cuda_of_torch()
    except PackageNotFoundError:
        return
    if built_for is None:
        yield error(
            CHECK,
            "torch is built without CUDA: no worker can use the GPUs",
            "Install torch for CUDA (https://pytorch.org/get-started/locally).",
        )
    elif int(built_for.split(".")[0]) > driver_cuda:
        yield error(
            CHECK,
            f"torch is built for CUDA {built_for}, and the driver knows CUDA {driver_cuda} at most",
            "Update the NVIDIA driver, or install torch for an older CUDA.",
        )


def _read(index: int) -> Card:
    import pynvml

    def told(read: Callable[[], Value]) -> Value | None:
        """What the driver tells; not every card has everything."""
        try:
            return read()
        except pynvml.NVMLError:
            return None

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    rows = told(lambda: pynvml.nvmlDeviceGetRemappedRows(handle)) or (0, 0, 0, 0)
    return Card(
        index=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        memory_free=int(memory.free),
        memory_total=int(memory.total),
        celsius=told(lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))),
        slowdown_celsius=told(
            lambda: int(pynvml.nvmlDeviceGetTemperatureThreshold(handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN))
        ),
        uncorrected_errors=told(
            lambda: int(
                pynvml.nvmlDeviceGetTotalEccErrors(
                    handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
                )
            )
        ),
        rows_pending=bool(rows[2]),
        rows_failed=bool(rows[3]),
        others=tuple(
            f"{told(lambda: pynvml.nvmlSystemGetProcessName(one.pid)) or 'process'} ({one.pid})"  # noqa: B023
            for one in told(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
        ),
    )
