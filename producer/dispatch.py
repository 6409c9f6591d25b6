"""Decides which batch goes next: keeps each Celery queue a few batches deep per live worker, and shares it fairly.

A short queue is what makes priorities and cancellation take effect at once: everything else waits in Postgres,
where it can still be reordered. Who gets its places is ``producer/scheduling.py``.
"""

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import Connection, Engine, case, func, lateral, select, true

from farm.broker import ring
from farm.faults import reach
from farm.logs import about
from farm.minutes import megapixel_steps
from farm.models import Batch, Image, Job, Share, Worker
from farm.priorities import LEAST, PriorityClass, class_of, message_priority
from farm.queues import waits_for_no_job
from farm.settings import Settings
from farm.spec import SharedParameters
from farm.states import BatchState, JobState, Stage
from farm.tags import satisfies
from farm.tracing import span
from farm.transitions import Dispatched, queue_ready_batches
from farm.workers import takes_batches
from producer.scheduling import FIRST_BATCHES, JobLoad, Ledger, Order, plan

logger = logging.getLogger(__name__)

#: Base stops running ahead when so many batches per refiner worker wait for their refiner: latents cost space.
REFINER_BACKLOG = 8
#: Batches that are queued in one transaction. Their messages follow it: more, and those that wait longest wait longer.
_AT_ONCE = 128
#: Beside its denoising an image costs about as much as so many megapixel-steps: texts, decoding, encoding.
_BESIDE = 2.0


@dataclass(frozen=True, slots=True)
class QueueKey:
    """Which batches share a queue: one pipeline's stage, and what their jobs require of a worker."""

    pipeline: str
    stage: Stage
    requires: str = ""


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What waits in a queue, and the workers that take batches from it."""

    key: QueueKey
    workers: int
    queued: Mapping[PriorityClass, int]

    @property
    def bulk(self) -> int:
        """Batches that wait and are not interactive."""
        return self.before(PriorityClass.IDLE)

    def before(self, priority_class: PriorityClass) -> int:
        """Batches that wait in the lines of a class and those above it; interactive ones have a line of their own."""
        if priority_class is PriorityClass.INTERACTIVE:
            return self.queued.get(priority_class, 0)
        return sum(n for one, n in self.queued.items() if priority_class <= one < PriorityClass.INTERACTIVE)


@dataclass
class _OnTheirWay:
    """Batches of a job."""

    queued: int = 0
    running: int = 0


class Dispatcher:
    """Fills the queues; remembers from round to round what is needed to share them fairly."""

    def __init__(self, engine: Engine, celery: Celery, settings: Settings) -> None:
        self._engine, self._celery, self._settings = engine, celery, settings
        self._ledgers: dict[QueueKey, Ledger] = defaultdict(Ledger)
        self._costs: dict[int, float] = {}

    def dispatch(self) -> int:
        """Fill the queues up, and ring for what was queued. Returns how many batches were sent."""
        sent = 0
        # What is read needs no transaction, and each costs as much as the query in it.
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            on_their_way, queues = queue_loads(connection, self._settings.lease_seconds)
            for queue in queues:
                capacity = self._settings.queue_depth * queue.workers
                if not capacity:
                    continue
                jobs = job_loads(connection, queue, capacity, on_their_way, self._costs)
                if is_held_up(queue, queues):
                    # Somebody waits for what is interactive, however full the store gets.
                    jobs = [job for job in jobs if class_of(job.priority) is PriorityClass.INTERACTIVE]
                orders = plan(jobs, capacity, queue.queued, self._ledgers[queue.key], time.monotonic())
                for start in range(0, len(orders), _AT_ONCE):
                    sent += self._send(queue.key, orders[start : start + _AT_ONCE])
                for order in orders:
                    # What a job may have is counted over all its queues.
                    on_their_way[order.job_id].queued += 1
        return sent

    def forget(self) -> None:
        """Drop what is remembered of jobs that have ended."""
        with self._engine.connect() as connection:
            unfinished = set(connection.scalars(select(Job.id).where(Job.finished_at.is_(None))))
        for ledger in self._ledgers.values():
            ledger.forget_all_but(unfinished)
        for job_id in self._costs.keys() - unfinished:
            del self._costs[job_id]

    def _send(self, key: QueueKey, orders: Sequence[Order]) -> int:
        """Queue the jobs' next batches, and ring for them in the order of the orders. Returns for how many."""
        sent = 0
        queued: dict[int, deque[Dispatched]] = defaultdict(deque)
        for batch in queue_ready_batches(self._engine, Counter(order.job_id for order in orders), key.stage):
            queued[batch.job_id].append(batch)
        reach("dispatch.queued")
        for order in orders:
            if not queued[order.job_id]:
                # Paused, cancelled or claimed as a companion since they were counted.
                continue
            batch = queued[order.job_id].popleft()
            ids = {"job": order.job_id, "batch": batch.batch_id, "attempt": batch.attempt}
            try:
                with about(**ids), span("dispatch", batch.traceparent, **ids):
                    ring(
                        self._celery,
                        batch.pipeline,
                        batch.stage,
                        batch.batch_id,
                        batch.attempt,
                        refined=batch.refined,
                        priority=message_priority(order.priority_class, first=order.first),
                        requires=key.requires,
                    )
            except OperationalError as error:
                logger.warning("broker away, batch %d waits to be sent again: %s", batch.batch_id, error)
            else:
                sent += 1
                reach("dispatch.rang")
        return sent


def is_held_up(queue: QueueLoad, queues: Collection[QueueLoad]) -> bool:
    """Whether a base must wait because too much waits for the refiner."""
    if queue.key.stage is not Stage.BASE:
        return False
    following = QueueKey(queue.key.pipeline, Stage.REFINER, queue.key.requires)
    refiner = next((other for other in queues if other.key == following), None)
    return refiner is not None and refiner.bulk >= REFINER_BACKLOG * max(refiner.workers, 1)


def queue_loads(connection: Connection, lease_seconds: float) -> tuple[dict[int, _OnTheirWay], list[QueueLoad]]:
    """What is on its way, by job, and the queues that have work or workers."""
    rows = connection.execute(
        select(Batch.job_id, Batch.stage, Batch.state, func.count(), Job.pipeline, Job.requires, Job.priority)
        .join(Job, Job.id == Batch.job_id)
        .where(Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING)))
        .group_by(Batch.job_id, Batch.stage, Batch.state, Job.id)
    )
    on_their_way: dict[int, _OnTheirWay] = defaultdict(_OnTheirWay)
    queued: dict[QueueKey, Counter[PriorityClass]] = defaultdict(Counter)
    for job_id, stage, state, count, pipeline, requires, priority in rows:
        if state is BatchState.QUEUED:
            on_their_way[job_id].queued += count
            queued[QueueKey(pipeline, stage, requires)][class_of(priority)] += count
        else:
            on_their_way[job_id].running += count
    unfinished = connection.execute(select(Job.pipeline, Job.requires).where(Job.finished_at.is_(None)).distinct())
    wanted = {QueueKey(pipeline, stage, requires) for pipeline, requires in unfinished for stage in Stage}
    alive = connection.execute(
        select(Worker.pipeline, Worker.stages, Worker.tags, func.count())
        .where(takes_batches(lease_seconds))
        .group_by(Worker.pipeline, Worker.stages, Worker.tags)
    ).all()
    workers: Counter[QueueKey] = Counter()
    for key in wanted | queued.keys():
        workers[key] = sum(
            count
            for pipeline, stages, tags, count in alive
            if pipeline == key.pipeline and key.stage.value in stages and satisfies(tags, key.requires)
        )
    keys = sorted(wanted | queued.keys(), key=lambda key: (key.pipeline, key.stage, key.requires))
    return on_their_way, [QueueLoad(key, workers[key], queued[key]) for key in keys]


def job_loads(
    connection: Connection,
    queue: QueueLoad,
    capacity: int,
    on_their_way: Mapping[int, _OnTheirWay],
    costs: dict[int, float],
) -> list[JobLoad]:
    """The jobs that have batches ready for a queue, which are counted as far as there are places in their class.

    ``costs`` of those that are new are worked out and added.
    """
    key = queue.key
    places = {one: max(capacity - queue.before(one), min(FIRST_BATCHES, capacity)) for one in PriorityClass}
    ready = lateral(
        select(Batch.id)
        .where(
            Batch.job_id == Job.id,
            Batch.state == BatchState.READY,
            ~Batch.held,
            Batch.stage == key.stage,
            Batch.run_after <= func.now(),
        )
        .limit(case(*((Job.priority >= LEAST[one], places[one]) for one in sorted(PriorityClass, reverse=True))))
    )
    rows = connection.execute(
        select(
            Job.id,
            Job.owner,
            Job.priority,
            Job.max_devices,
            func.extract("epoch", func.now() - Job.created_at).label("age"),
            func.coalesce(Share.weight, 1.0).label("weight"),
            func.count(ready.c.id).label("ready"),
            func.min(ready.c.id).label("first_ready"),
        )
        .select_from(Job)
        .join(ready, true())
        .outerjoin(Share, Share.owner == Job.owner)
        .where(
            Job.pipeline == key.pipeline,
            Job.requires == key.requires,
            Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
            Job.paused_at.is_(None),
            waits_for_no_job(),
        )
        .group_by(Job.id, Share.weight)
    ).all()
    costs |= _costs_of(connection, {row.id: row.first_ready for row in rows if row.id not in costs})
    nothing = _OnTheirWay()
    return [
        JobLoad(
            job_id=row.id,
            owner=row.owner,
            priority=row.priority,
            ready=row.ready,
            queued=on_their_way.get(row.id, nothing).queued,
            running=on_their_way.get(row.id, nothing).running,
            max_devices=row.max_devices,
            weight=row.weight,
            cost=costs[row.id],
            age_seconds=float(row.age),
        )
        for row in rows
    ]


def _costs_of(connection: Connection, batches: Mapping[int, int]) -> dict[int, float]:
    """What a batch of each job costs, by one of its batches: the megapixel-steps of its images in both stages."""
    if not batches:
        return {}
    images = select(func.count()).where(Image.batch_id == Batch.id).scalar_subquery()
    rows = connection.execute(
        select(Batch.job_id, Batch.parameters, images).where(Batch.id.in_(batches.values()))
    ).all()
    costs = {}
    for job_id, parameters, count in rows:
        shared = SharedParameters.model_validate(parameters)
        costs[job_id] = count * (_BESIDE + sum(megapixel_steps(shared, stage) for stage in Stage))
    return costs
