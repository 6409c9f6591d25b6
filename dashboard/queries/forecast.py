"""When a job will be done, and whether that is in time."""

from dataclasses import dataclass

from sqlalchemy import Engine

from dashboard.queries.jobs import JobView
from farm.states import Stage
from producer.estimate import estimate
from producer.throughput import throughput


@dataclass(frozen=True, slots=True)
class Forecast:
    """When an unfinished job will be done, if the workers stay as they are."""

    seconds_left: float
    seconds_late: float | None
    """Behind its deadline; negative: before it. None without one."""


def forecast(engine: Engine, view: JobView, lease_seconds: float) -> Forecast | None:
    """By what the job did so far; before its first picture by what the farm measured, behind all that waits.

    None when it has ended, or nobody can tell: it is paused, or waits for another job's end, nothing was measured, or
    nobody is there to render.
    """
    job = view.job
    waits = job.after_job_id is not None and job.started_at is None
    if job.finished_at is not None or job.paused_at is not None or waits:
        return None
    left = view.seconds_left
    if left is None:
        left = estimate(dict.fromkeys(Stage, 0.0), throughput(engine, job.pipeline, lease_seconds)).seconds_until_done
    if left is None:
        return None
    late = None if job.deadline is None else left - (job.deadline - view.now).total_seconds()
    return Forecast(left, late)
