"""What a pipeline's workers did of late, and what waits for them: what estimates are made from."""

from collections import Counter
from datetime import timedelta

from sqlalchemy import Connection, Engine, func, select, true

from farm.models import Batch, Job, RenderMinute, Worker
from farm.spec import SharedParameters
from farm.states import BatchState, Stage
from producer.estimate import Throughput, work_per_image

#: Measurements older than this say little of the devices that are there now.
MEASURED_HOURS = 24
#: Work that waits is told from so many unfinished batches of each job: counting every image would take seconds.
SAMPLED_BATCHES = 4
#: More unfinished jobs than this are not looked at one by one.
SAMPLED_JOBS = 500


def throughput(engine: Engine, pipeline: str, lease_seconds: float) -> Throughput:
    """What is known of a pipeline, in three queries."""
    with engine.connect() as connection:
        return Throughput(
            seconds_per_unit=_measured(connection, pipeline),
            waiting=_waiting(connection, pipeline),
            workers=_workers(connection, pipeline, lease_seconds),
        )


def _measured(connection: Connection, pipeline: str) -> dict[Stage, float]:
    query = (
        select(RenderMinute.stage, func.sum(RenderMinute.seconds), func.sum(RenderMinute.megapixel_steps))
        .where(RenderMinute.minute > func.now() - timedelta(hours=MEASURED_HOURS), RenderMinute.pipeline == pipeline)
        .group_by(RenderMinute.stage)
    )
    return {stage: seconds / units for stage, seconds, units in connection.execute(query) if units}


def _workers(connection: Connection, pipeline: str, lease_seconds: float) -> Counter[frozenset[Stage]]:
    query = select(Worker.stages).where(
        Worker.pipeline == pipeline,
        Worker.stopped_at.is_(None),
        Worker.draining_at.is_(None),
        Worker.heartbeat_at > func.now() - timedelta(seconds=lease_seconds),
    )
    return Counter(frozenset(map(Stage, stages)) for stages in connection.scalars(query))


def _waiting(connection: Connection, pipeline: str) -> dict[Stage, float]:
    """Megapixel-steps of unfinished images; a batch whose base is done counts as a whole, for it is soon gone."""
    jobs = (
        select(
            Job.id,
            (func.coalesce(Job.test_images, Job.image_count) - Job.images_completed - Job.images_failed).label(
                "images"
            ),
        )
        .where(Job.finished_at.is_(None), Job.paused_at.is_(None), Job.pipeline == pipeline)
        .order_by(Job.id)
        .limit(SAMPLED_JOBS)
        .subquery("unfinished")
    )
    sample = (
        select(Batch.parameters)
        .where(Batch.job_id == jobs.c.id, Batch.state == BatchState.READY, ~Batch.held)
        .order_by(Batch.id)
        .limit(SAMPLED_BATCHES)
        .lateral("sample")
    )
    found: dict[int, tuple[int, list[SharedParameters]]] = {}
    for job_id, images, parameters in connection.execute(
        select(jobs.c.id, jobs.c.images, sample.c.parameters).join(sample, true())
    ):
        found.setdefault(job_id, (images, []))[1].append(SharedParameters.model_validate(parameters))
    total = dict.fromkeys(Stage, 0.0)
    for images, samples in found.values():
        for parameters in samples:
            for stage, units in work_per_image(parameters).items():
                total[stage] += units * max(images, 0) / len(samples)
    return total
