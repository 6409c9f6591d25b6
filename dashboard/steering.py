"""What people do to jobs, for pages and API alike: checked, done one by one, and told for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError
from sqlalchemy import Engine, select

from dashboard.auth import owner_or_operator
from farm.control import cancel_job, change_job, delete_job, pause_job, resume_job, retry_failed
from farm.errors import InvalidSubmissionError, Problem
from farm.models import Job
from farm.people import Identity
from farm.spec import JobSpec

#: Each is a transaction of its own.
MAX_JOBS = 1_000


@dataclass(frozen=True, slots=True)
class Action:
    """Something that can be done to a job."""

    act: Callable[[Engine, int, str], bool]
    """Does it to a job, in somebody's name; False if it was in vain."""
    past: str
    """Said of jobs to which it was done."""
    in_vain: str = "had ended already"
    """Said of those that were left as they are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job."""

    job_id: int
    done: bool
    reason: str = ""
    """Why nothing was done."""


NAMES = ("pause", "resume", "cancel", "retry", "priority", "delete")


def action_named(name: object, priority: object = None) -> Action:
    """What one of NAMES stands for. Raises InvalidSubmissionError for another name, or a priority that cannot be."""
    if name == "priority":
        value = _checked("priority", priority).priority
        return Action(partial(change_job, priority=value), f"Priority {value}")
    actions = {
        "pause": Action(pause_job, "Paused"),
        "resume": Action(resume_job, "Resumed"),
        "cancel": Action(cancel_job, "Cancelled"),
        "retry": Action(lambda engine, job_id, by: retry_failed(engine, job_id, by) > 0, "Retried", "nothing to retry"),
        "delete": Action(_delete, "Deleted", "has not ended; cancel it first"),
    }
    if not isinstance(name, str) or name not in actions:
        raise InvalidSubmissionError([Problem("action", f"must be one of {', '.join(NAMES)}")])
    return actions[name]


def renaming(name: str) -> Action:
    """Giving a job another name; raises InvalidSubmissionError for one that cannot be."""
    return Action(partial(change_job, name=_checked("name", name.strip() or None).name), "Renamed")


def steer(engine: Engine, job_ids: Sequence[int], action: Action, who: Identity) -> list[Outcome]:
    """Do something to each of the jobs. Those that are not there, are others' or have ended are left as they are, and
    their outcome says so. Raises InvalidSubmissionError for too many.
    """
    if len(job_ids) > MAX_JOBS:
        raise InvalidSubmissionError([Problem("jobs", f"are {len(job_ids):,}; at most {MAX_JOBS:,} are taken at once")])
    job_ids = list(dict.fromkeys(job_ids))
    with engine.connect() as connection:
        rows = connection.execute(select(Job.id, Job.owner).where(Job.id.in_(job_ids)))
        owners = {row.id: row.owner for row in rows}
    outcomes = []
    for job_id in job_ids:
        if job_id not in owners:
            outcomes.append(Outcome(job_id, done=False, reason="there is none"))
        elif not owner_or_operator(who, owners[job_id]):
            outcomes.append(Outcome(job_id, done=False, reason=f"is {owners[job_id] or 'nobody'}'s, not yours"))
        elif action.act(engine, job_id, who.name):
            outcomes.append(Outcome(job_id, done=True))
        else:
            outcomes.append(Outcome(job_id, done=False, reason=action.in_vain))
    return outcomes


def _delete(engine: Engine, job_id: int, by: str) -> bool:
    return delete_job(engine, job_id, by)


def _checked(field: str, value: object) -> JobSpec:
    if value is None:
        raise InvalidSubmissionError([Problem(field, "is missing")])
    try:
        return JobSpec.model_validate({field: value})
    except ValidationError as error:
        raise InvalidSubmissionError([Problem(field, error.errors()[0]["msg"].lower())]) from None
