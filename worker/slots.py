"""Which messages a worker takes while it has batches in hand.

Two of a class may be in hand: one is stored while the device renders the other. Bulk work never fills the slots of
interactive requests. And while one of these waits for the device, those behind it stay in the broker, unclaimed: it can
take them along in its call, or another worker can take them.

Celery knows one number of slots for all messages; what is asked of the broker while some are taken is decided here.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.worker import state
from kombu.asynchronous import get_event_loop
from kombu.transport import redis, virtual
from redis.exceptions import OutOfMemoryError
from typing_extensions import override

from farm.priorities import BULK_MESSAGES, INTERACTIVE_MESSAGE

logger = logging.getLogger(__name__)

SLOTS_PER_CLASS = 2
#: For Celery. One more than is used: it would look only once a second whether a slot was free again.
SLOTS = SLOTS_PER_CLASS * 2 + 1
#: Pause before the broker is asked again when nothing may be taken.
CLOSED_SECONDS = 0.05

#: Messages in hand, by Celery's ids, for whose batches the device's turn has come.
_begun: set[str] = set()


@contextmanager
def in_hand(request_id: str) -> Iterator[Callable[[], None]]:
    """The time in which a message is worked on; gives what is to be called when the device's turn has come."""
    try:
        yield lambda: _begun.add(request_id)
    finally:
        _begun.discard(request_id)


class QoS(redis.QoS):
    """Messages in hand, which the broker keeps too until they are acknowledged, if it can."""

    @override
    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]
        except OutOfMemoryError:
            # A full broker takes nothing, but this it has given away already: it is worked on all the same.
            virtual.QoS.append(self, message, delivery_tag)  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """Asks the broker only for messages that may be taken now."""

    QoS = QoS

    @override
    def _brpop_start(self, timeout: float | None = None) -> None:
        # kombu asks for one message at a time, and asks again when it has come or after the polling interval.
        self.priority_steps = _open_classes()
        if self.priority_steps:
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call]
        elif (loop := get_event_loop()) is not None:
            loop.call_later(CLOSED_SECONDS, lambda: None)  # type: ignore[no-untyped-call]

    @override
    def _brpop_read(self, **options: Any) -> bool | None:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-any-return, no-untyped-call]
        except (ValueError, RecursionError) as error:
            # It is off the list already, and kombu would end the process for it.
            logger.warning("dropped what came from the broker and is no JSON: %s", error)
            return True

    @override
    def _receive(self) -> bool:
        # After a new connection the loop may still hold that the former one, of the same number, can be read. kombu
        # would wait for ever for what nobody sends: the worker would be deaf.
        connection = self.subclient.connection
        if connection is not None and not connection.can_read(timeout=0):
            return False
        return super()._receive()  # type: ignore[no-any-return, no-untyped-call]


class Transport(redis.Transport):
    """kombu's Redis transport, over these channels."""

    Channel = Channel

    @override
    def _deliver(self, message: object, queue: str) -> None:
        try:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            # Anybody who can write to the broker can write anything, and kombu and Celery take it for what they wrote.
            logger.exception("dropped a message that cannot be read")


def _open_classes() -> list[int]:
    """Priorities of the messages that may be taken."""
    requests = _reserved()
    interactive = [request.id for request in requests if request.delivery_info["priority"] == INTERACTIVE_MESSAGE]
    classes = []
    if len(interactive) < SLOTS_PER_CLASS and _begun.issuperset(interactive):
        classes.append(INTERACTIVE_MESSAGE)
    if len(requests) - len(interactive) < SLOTS_PER_CLASS:
        classes.extend(BULK_MESSAGES)
    return classes


def _reserved() -> list[Any]:
    """Celery's messages in hand."""
    while True:
        try:
            return list(state.reserved_requests)
        except RuntimeError:
            # Another thread ended one while they were listed.
            continue
