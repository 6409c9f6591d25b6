"""What a pipeline's workers did of late, and what waits for them: what estimates are made from."""

from collections import Counter
from datetime import timedelta

from sqlalchemy import Connection, Engine, func, select, true

from farm.models import Batch, Job, RenderMinute, Worker
from farm.queues import waits_for_no_job
from farm.spec import SharedParameters
from farm.states import BatchState, Stage
from farm.workers import takes_batches
from producer.estimate import Throughput, work_per_image

#: Measurements older than this say little of the devices that are there now.
MEASURED_HOURS = 24
#: Work that waits is told from so many unfinished batches of each job: counting every image would take seconds.
SAMPLED_BATCHES = 4
#: More unfinished jobs than this are not looked at one by one.
SAMPLED_JOBS = 500


def throughput(engine: Engine, pipeline: str, lease_seconds: float) -> Throughput:
    """What is known of a pipeline, in four queries."""
    with engine.connect() as connection:
        jobs = unfinished_work(connection, pipeline)
        return Throughput(
            seconds_per_unit=measured(connection, pipeline),
            waiting={stage: sum(work[stage] for work in jobs.values()) for stage in Stage},
            workers=live_workers(connection, pipeline, lease_seconds),
        )


def measured(connection: Connection, pipeline: str) -> dict[Stage, float]:
    """Seconds of a device for a megapixel-step, of the stages that were measured."""
    query = (
        select(RenderMinute.stage, func.sum(RenderMinute.seconds), func.sum(RenderMinute.megapixel_steps))
        .where(RenderMinute.minute > func.now() - timedelta(hours=MEASURED_HOURS), RenderMinute.pipeline == pipeline)
        .group_by(RenderMinute.stage)
    )
    return {stage: seconds / units for stage, seconds, units in connection.execute(query) if units}


def live_workers(connection: Connection, pipeline: str, lease_seconds: float) -> Counter[frozenset[Stage]]:
    """How many workers that take batches serve exactly these stages."""
    query = select(Worker.stages).where(Worker.pipeline == pipeline, takes_batches(lease_seconds))
    return Counter(frozenset(map(Stage, stages)) for stages in connection.scalars(query))


def unfinished_work(connection: Connection, pipeline: str) -> dict[int, dict[Stage, float]]:
    """Megapixel-steps of each job's unfinished images; a batch whose base is done counts as a whole, for it is soon
    gone.
    """
    jobs = (
        select(
            Job.id,
            (func.coalesce(Job.test_images, Job.image_count) - Job.images_completed - Job.images_failed).label(
                "images"
            ),
        )
        .where(Job.finished_at.is_(None), Job.paused_at.is_(None), Job.pipeline == pipeline, waits_for_no_job())
        .order_by(Job.id)
        .limit(SAMPLED_JOBS)
        .subquery("unfinished")
    )
    ready = (
        select(Batch.parameters)
        .where(Batch.job_id == jobs.c.id, Batch.state == BatchState.READY, ~Batch.held)
        .order_by(Batch.id)
        .limit(SAMPLED_BATCHES)
        .lateral("sample")
    )
    # These are few. A job whose last batches are on their way has no others.
    active = Batch.state.in_((BatchState.QUEUED, BatchState.RUNNING))
    samples = (
        select(jobs.c.id, jobs.c.images, ready.c.parameters).join(ready, true()),
        select(jobs.c.id, jobs.c.images, Batch.parameters).join(Batch, Batch.job_id == jobs.c.id).where(active),
    )
    found: dict[int, tuple[int, list[SharedParameters]]] = {}
    for query in samples:
        for job_id, images, parameters in connection.execute(query):
            found.setdefault(job_id, (images, []))[1].append(SharedParameters.model_validate(parameters))
    return {job_id: _work(max(images, 0), some) for job_id, (images, some) in found.items()}


def _work(images: int, sample: list[SharedParameters]) -> dict[Stage, float]:
    """Megapixel-steps of so many images like those of the sample."""
    each = [work_per_image(parameters) for parameters in sample]
    return {stage: images * sum(work[stage] for work in each) / len(each) for stage in Stage}
