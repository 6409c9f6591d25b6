"""How many devices would be done in time: arithmetic over numbers, without a database."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: A new device takes about so long until it renders: what is due sooner, or late already, calls for no more than what
#: would be done in this time.
STARTING_SECONDS = 60.0
#: What rounding adds is not worth a device.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Due:
    """Work that shall be done by a time."""

    device_seconds: float
    seconds_left: float
    """From now; below 0 it is late."""


def devices_in_time(work: Iterable[Due]) -> int:
    """The fewest devices that do each piece in its time, if they share the work and begin with what is due first.

    All that is due up to a time must be done by then: so many devices as the worst of these times takes.
    """
    needed, before = 0.0, 0.0
    for piece in sorted(work, key=lambda piece: piece.seconds_left):
        before += piece.device_seconds
        needed = max(needed, before / max(piece.seconds_left, STARTING_SECONDS))
    return math.ceil(needed * (1 - _ROUNDING))


def devices_wanted(work: Iterable[Due] | None, batches: int) -> int:
    """How many devices a queue should have while so many batches wait there or are being rendered.

    No more than there are batches, for devices never share one. As long as nothing was measured (``None``) one device
    shall tell how long the work takes.
    """
    if not batches:
        return 0
    needed = 1 if work is None else devices_in_time(work)
    return min(max(needed, 1), batches)
