"""A worker whose device failed or hangs gives up: what it holds goes back in line, and its process ends.

A CUDA context that has failed once fails for ever, and a call that hangs cannot be ended: only a new process can use
the device again. Its supervisor starts one, and lets a device rest that fails again and again (``farm.keeper``).
"""

import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from farm.claims import Claim
from farm.keeper import DEVICE_FAILED
from farm.transitions import dismiss_worker, fail_attempt, hand_back
from worker.memory import is_out_of_memory
from worker.station import Station

logger = logging.getLogger(__name__)

#: How PyTorch's messages begin where it has no exception of its own for it.
_DEVICE_ERRORS = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "MPS backend error")


def is_device_failure(error: Exception) -> bool:
    """Whether this is how torch says that the device itself failed, and not for want of memory."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or any(name in str(error) for name in _DEVICE_ERRORS)


def surrender(station: Station, failed: Sequence[Claim], reason: str) -> NoReturn:
    """End this process at once. The attempts of ``failed`` count as such; whatever else is held is handed back."""
    logger.critical("%s gives up: %s", station.worker_id, reason)
    limits = station.settings.max_failures, station.settings.max_failed_images
    try:
        for claim in failed:
            fail_attempt(station.engine, claim.batch_id, claim.attempt, reason, *limits)
        for claim in station.keeper.claims():
            hand_back(station.engine, claim.batch_id, claim.attempt)
        dismiss_worker(station.engine, station.worker_id, reason)
    except Exception:
        # Whatever it is, a process whose device is gone must not go on.
        logger.exception("what is held is left to its leases")
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that hang would keep any other way of ending.
    os._exit(DEVICE_FAILED)
