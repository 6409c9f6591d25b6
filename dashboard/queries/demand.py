"""How many devices a pipeline's stages could use now: what an autoscaler asks."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select

from farm.models import Job
from farm.queues import count_queues
from farm.states import Stage
from producer.autoscale import Due, devices_wanted
from producer.throughput import live_workers, measured, unfinished_work


@dataclass(frozen=True, slots=True)
class Demand:
    """What some stages of a pipeline have to do, and with how many devices they would be done in time."""

    devices: int
    workers: int
    """Live ones that serve any of these stages."""
    batches: int
    """Those that wait or are being rendered."""
    waiting_seconds: float | None
    """A device's time for what is unfinished; None when nothing was measured."""


def demand(
    engine: Engine, pipeline: str, stages: Collection[Stage], target_seconds: float, lease_seconds: float
) -> Demand:
    """What these stages need so that what waits is done in ``target_seconds``."""
    with engine.connect() as connection:
        batches = sum(
            queue.waiting + queue.running
            for queue in count_queues(connection)
            if queue.pipeline == pipeline and queue.stage in stages
        )
        workers = sum(
            count
            for serves, count in live_workers(connection, pipeline, lease_seconds).items()
            if not serves.isdisjoint(stages)
        )
        work = _work_due(connection, pipeline, stages, target_seconds)
    return Demand(
        devices=devices_wanted(work, batches),
        workers=workers,
        batches=batches,
        waiting_seconds=None if work is None else sum(piece.device_seconds for piece in work),
    )


def _work_due(
    connection: Connection, pipeline: str, stages: Collection[Stage], target_seconds: float
) -> list[Due] | None:
    """What each job still takes of a device, and when it is due; None when a stage was not measured.

    A job without a deadline is due in the target time; one with a deadline then, if that is earlier.
    """
    seconds_per_unit = measured(connection, pipeline)
    of_jobs = unfinished_work(connection, pipeline)
    until = func.extract("epoch", Job.deadline - func.now())
    deadlines = {
        job_id: float(seconds)
        for job_id, seconds in connection.execute(
            select(Job.id, until).where(Job.id.in_(of_jobs), Job.deadline.is_not(None))
        )
    }
    due = []
    for job_id, work in of_jobs.items():
        needed = {stage: units for stage, units in work.items() if units and stage in stages}
        if not needed.keys() <= seconds_per_unit.keys():
            return None
        device_seconds = sum(units * seconds_per_unit[stage] for stage, units in needed.items())
        due.append(Due(device_seconds, min(deadlines.get(job_id, target_seconds), target_seconds)))
    return due
