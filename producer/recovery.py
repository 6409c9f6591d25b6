"""Finds what a crash left behind, and puts it back in line: leases that ran out, messages that were lost."""

import logging
from collections import defaultdict
from datetime import timedelta
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError
from sqlalchemy import Engine, func, select

from farm.broker import queue_name, waiting_batches, waiting_messages
from farm.models import Batch, Job
from farm.settings import Settings
from farm.spec import INTERACTIVE_PRIORITY
from farm.states import BatchState
from farm.transitions import fail_attempt, return_lost_messages

logger = logging.getLogger(__name__)


def recover_expired_leases(engine: Engine, settings: Settings) -> int:
    """Batches whose worker stopped renewing its lease: that attempt failed, the next one may begin."""
    with engine.connect() as connection:
        expired = connection.execute(
            select(Batch.id, Batch.attempt, Batch.worker_id).where(
                Batch.state == BatchState.RUNNING, Batch.lease_until < func.now()
            )
        ).all()
    for batch in expired:
        error = f"Worker {batch.worker_id} stopped answering while it rendered this batch."
        limits = settings.max_failures, settings.max_failed_images
        outcome = fail_attempt(engine, batch.id, batch.attempt, error, *limits, lease_expired=True)
        logger.warning("batch %d attempt %d: lease ran out, %s", batch.id, batch.attempt, outcome.value)
    return len(expired)


class LostMessages:
    """Finds batches that were queued a while ago but whose messages the broker does not hold.

    A message that a worker has just taken, and has not yet claimed, is not in the broker either: a batch counts as
    lost when its message was missing twice running.
    """

    def __init__(self, engine: Engine, celery: Celery, settings: Settings) -> None:
        self._engine, self._celery, self._settings = engine, celery, settings
        self._missed: set[tuple[int, int]] = set()

    def recover(self) -> int:
        """Put those back in line that were missing last time and still are. Returns how many."""
        missing: set[tuple[int, int]] = set()
        try:
            for (queue, interactive), waiting in self._queued().items():
                # Most often all are there, and to count them is enough.
                if waiting_messages(self._celery, queue, interactive=interactive) < len(waiting):
                    overdue = {(row.id, row.attempt) for row in waiting if row.overdue}
                    missing |= overdue - waiting_batches(self._celery, queue, interactive=interactive)
        except (RedisError, OperationalError) as error:
            logger.warning("broker away, lost messages cannot be told from waiting ones: %s", error)
            return 0
        lost = missing & self._missed
        self._missed = missing - lost
        if not lost:
            return 0
        returned = return_lost_messages(self._engine, sorted(lost))
        logger.warning("%d messages were lost by the broker, their batches go back in line", returned)
        return returned

    def _queued(self) -> dict[tuple[str, bool], list[Any]]:
        """Batches that wait for a worker, by queue and whether they are interactive."""
        limit = func.now() - timedelta(seconds=self._settings.lost_message_seconds)
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(
                    Batch.id,
                    Batch.attempt,
                    Batch.stage,
                    Job.pipeline,
                    Job.requires,
                    (Job.priority >= INTERACTIVE_PRIORITY).label("interactive"),
                    (Batch.queued_at < limit).label("overdue"),
                )
                .join(Job, Job.id == Batch.job_id)
                .where(Batch.state == BatchState.QUEUED)
            ).all()
        queues: dict[tuple[str, bool], list[Any]] = defaultdict(list)
        for row in rows:
            queues[queue_name(row.pipeline, row.stage, row.requires), row.interactive].append(row)
        return queues
