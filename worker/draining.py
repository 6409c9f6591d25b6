"""Which queues this worker takes messages from: the heartbeat brings it home, Celery's consumer follows."""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from celery import Celery
from celery.signals import worker_ready

logger = logging.getLogger(__name__)


class Tap:
    """Opens and closes the queues of a worker.

    Told at every heartbeat, it compares with what is consumed and mends the difference. So a broker that was flushed
    or away, and the connection that Celery makes anew after it, change nothing about a drained worker.
    """

    def __init__(self, app: Celery, queues_for: Callable[[Collection[str]], Sequence[str]]) -> None:
        """``queues_for`` names the queues to take from, in their order, given what unfinished jobs require."""
        self._app = app
        self._queues_for = queues_for
        self._consumer: Any = None
        self._closed = False
        # Connected weakly, as is the default, this would be gone before it is needed.
        worker_ready.connect(self._on_ready, weak=False)

    def follow(self, draining: bool, requirements: Collection[str]) -> None:
        """Take no further message, or take them again; what was taken is finished. Called from any thread."""
        if self._consumer is None:
            return
        if draining != self._closed:
            self._closed = draining
            logger.info("drained: no further batch is taken" if draining else "batches are taken again")
        # Only Celery's own thread may touch its consumer.
        self._consumer.call_soon(self._apply, [] if draining else self._queues_for(requirements))

    def _on_ready(self, sender: Any, **_: Any) -> None:
        self._consumer = sender

    def _apply(self, wanted: Sequence[str]) -> None:
        consumer = self._consumer
        if consumer.task_consumer is None:
            # Not connected; the next heartbeat looks again.
            return
        for queue in set(self._app.amqp.queues.consume_from).difference(wanted):
            consumer.cancel_task_queue(queue)
        for queue in wanted:
            if not consumer.task_consumer.consuming_from(queue):
                consumer.add_task_queue(queue)
