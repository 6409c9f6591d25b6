"""How a device fails, for tests: at the seam between the farm and the pipelines, as torch would tell of it."""

import threading

import torch

from farm.faults import reach


def stumble() -> None:
    """Fail as a test wants the device to fail at this call; mostly do nothing."""
    match reach("worker.call"):
        case "out of memory":
            raise torch.OutOfMemoryError("CUDA out of memory, as a test wants it")
        case "lost":
            raise torch.AcceleratorError("CUDA error: unspecified launch failure, as a test wants it")
        case "hang":
            threading.Event().wait()
