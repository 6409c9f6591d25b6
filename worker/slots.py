"""How many batches of each class a worker has in hand: bulk work never fills the slots of interactive requests.

Two of a class let one be stored while the device renders the other. Celery knows one number of slots for all messages;
which lists are read while some are taken is decided here.
"""

from collections import Counter
from typing import Any

from celery.worker import state
from kombu.transport import redis
from typing_extensions import override

from farm.broker import BULK_MESSAGE, INTERACTIVE_MESSAGE

SLOTS_PER_CLASS = 2
SLOTS = SLOTS_PER_CLASS * 2


class Channel(redis.Channel):
    """Asks the broker only for messages of classes that have a slot left."""

    @override
    def _brpop_start(self, timeout: float | None = None) -> None:
        taken = _taken()
        # With all slots taken Celery does not ask at all.
        self.priority_steps = [
            step for step in (INTERACTIVE_MESSAGE, BULK_MESSAGE) if taken[step] < SLOTS_PER_CLASS
        ] or [INTERACTIVE_MESSAGE]
        super()._brpop_start(timeout)  # type: ignore[no-untyped-call]


class Transport(redis.Transport):
    """kombu's Redis transport, over these channels."""

    Channel = Channel


def _taken() -> Counter[int]:
    """Messages in hand, by their priority."""
    while True:
        try:
            requests: list[Any] = list(state.reserved_requests)
        except RuntimeError:
            # Another thread ended one while we counted.
            continue
        return Counter(request.delivery_info["priority"] for request in requests)
