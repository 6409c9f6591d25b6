"""Tells workers what to serve: reads what waits and who is there, and writes what ``producer/assignment.py`` decides.

A worker learns it by its heartbeat, finishes what it holds, and comes back as another worker that serves that.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.orm import aliased

from farm.catalog import Catalog
from farm.errors import NotFoundError
from farm.models import Job, Worker
from farm.states import Stage
from farm.workers import takes_batches
from producer.assignment import Demand, Device, assign
from producer.throughput import measured, unfinished_work

logger = logging.getLogger(__name__)

#: What a megapixel-step is taken to cost before any was measured; only the ratio of the stages counts then.
UNMEASURED_SECONDS = 0.05
#: How long a worker that was told to change is waited for after its last heartbeat, and so many times its loading.
PATIENCE_SECONDS = 30.0
PATIENCE_LOADS = 3.0


def reassign(engine: Engine, catalog: Catalog, lease_seconds: float) -> int:
    """Tell workers what to serve. Returns how many shall change."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(
                Worker.id,
                Worker.pipeline,
                Worker.stages,
                Worker.flexible,
                Worker.could_serve,
                Worker.load_seconds,
                func.extract("epoch", func.now() - Worker.started_at).label("seconds_here"),
            ).where(takes_batches(lease_seconds))
        ).all()
        # Nothing is decided while some are on the way to something else: what they will serve is not seen here.
        if not any(row.flexible for row in rows) or _on_the_way(connection, lease_seconds):
            return 0
        demands = {pipeline: _demand(connection, catalog, pipeline) for pipeline in _pipelines(connection)}
    changed = assign([_device(row) for row in rows], demands)
    with engine.begin() as connection:
        for device in changed:
            connection.execute(
                update(Worker)
                .where(Worker.id == device.worker_id)
                .values(wanted_pipeline=device.pipeline, wanted_stages=[stage.value for stage in sorted(device.stages)])
            )
            logger.info("%s shall serve %s of %s", device.worker_id, " and ".join(device.stages), device.pipeline)
    return len(changed)


def _on_the_way(connection: Connection, lease_seconds: float) -> bool:
    """Whether a worker was told to change and has not come back yet, as the same process under another name."""
    returned = aliased(Worker)
    came_back = (
        select(returned.id)
        .where(
            returned.hostname == Worker.hostname,
            returned.process_id == Worker.process_id,
            returned.started_at > Worker.started_at,
        )
        .exists()
    )
    # One that does not come is not waited for long: its process may have died.
    patience = timedelta(seconds=max(lease_seconds, PATIENCE_SECONDS)) + PATIENCE_LOADS * func.make_interval(
        0, 0, 0, 0, 0, 0, func.coalesce(Worker.load_seconds, 0.0)
    )
    missing = Worker.wanted_pipeline.is_not(None) & (Worker.heartbeat_at > func.now() - patience) & ~came_back
    return connection.scalar(select(Worker.id).where(missing).limit(1)) is not None


def _pipelines(connection: Connection) -> Sequence[str]:
    return connection.scalars(
        select(Job.pipeline).where(Job.finished_at.is_(None), Job.paused_at.is_(None)).distinct()
    ).all()


def _demand(connection: Connection, catalog: Catalog, pipeline: str) -> Demand:
    seconds_per_unit = measured(connection, pipeline)
    work = dict.fromkeys(Stage, 0.0)
    for of_job in unfinished_work(connection, pipeline).values():
        for stage, units in of_job.items():
            # A stage that nobody measured costs as much as the other.
            known = seconds_per_unit.get(stage) or next(iter(seconds_per_unit.values()), UNMEASURED_SECONDS)
            work[stage] += units * known
    try:
        has_refiner = catalog.get(pipeline).refiner is not None
    except NotFoundError:
        # Of another machine's catalog; what its jobs want shows it.
        has_refiner = work[Stage.REFINER] > 0
    return Demand(work, has_refiner)


def _device(row: Any) -> Device:
    return Device(
        worker_id=row.id,
        pipeline=row.pipeline,
        stages=frozenset(map(Stage, row.stages)),
        choosable=frozenset(row.could_serve) if "pipeline" in row.flexible else frozenset(),
        splittable="stages" in row.flexible,
        seconds_here=float(row.seconds_here),
        load_seconds=row.load_seconds or 0.0,
    )
