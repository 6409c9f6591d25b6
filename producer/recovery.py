"""Finds what a crash left behind, and puts it back in line: leases that ran out, messages that were lost."""

import logging
from collections import defaultdict
from datetime import timedelta
from typing import Any

from celery import Celery
from redis import RedisError
from sqlalchemy import Engine, func, select

from farm.broker import queue_name, waiting_messages
from farm.models import Batch, Job
from farm.settings import Settings
from farm.spec import INTERACTIVE_PRIORITY
from farm.states import BatchState
from farm.transitions import fail_attempt, return_lost_messages

logger = logging.getLogger(__name__)


def recover(engine: Engine, celery: Celery, settings: Settings) -> int:
    """One round of recovery. Returns how many batches were put back in line."""
    return recover_expired_leases(engine, settings) + recover_lost_messages(engine, celery, settings)


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
        outcome = fail_attempt(engine, batch.id, batch.attempt, error, settings.max_failures, lease_expired=True)
        logger.warning("batch %d attempt %d: lease ran out, %s", batch.id, batch.attempt, outcome.value)
    return len(expired)


def recover_lost_messages(engine: Engine, celery: Celery, settings: Settings) -> int:
    """Batches that were queued a while ago but whose messages the broker does not hold.

    When a queue holds fewer messages than batches wait for it, the oldest batches are taken for those whose messages
    are gone. One in too many costs a message that finds its batch already taken.
    """
    with engine.connect() as connection:
        queued = connection.execute(
            select(
                Batch.id,
                Batch.stage,
                Job.pipeline,
                Job.requires,
                (Job.priority >= INTERACTIVE_PRIORITY).label("interactive"),
                (Batch.queued_at < func.now() - timedelta(seconds=settings.lost_message_seconds)).label("overdue"),
            )
            .join(Job, Job.id == Batch.job_id)
            .where(Batch.state == BatchState.QUEUED)
            .order_by(Batch.queued_at)
        ).all()
    lost: list[int] = []
    queues: dict[tuple[str, bool], list[Any]] = defaultdict(list)
    for row in queued:
        queues[queue_name(row.pipeline, row.stage, row.requires), row.interactive].append(row)
    for (queue, interactive), waiting in queues.items():
        try:
            held = waiting_messages(celery, queue, interactive=interactive)
        except RedisError as error:
            logger.warning("broker away, lost messages cannot be told from waiting ones: %s", error)
            return 0
        missing = len(waiting) - held
        lost.extend(row.id for row in waiting[: max(missing, 0)] if row.overdue)
    if not lost:
        return 0
    returned = return_lost_messages(engine, lost)
    logger.warning("%d messages were lost by the broker, their batches go back in line", returned)
    return returned
