"""What pages and API show of the activity log."""

from collections.abc import Sequence

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from dashboard.queries.paging import MAX_ID, Page
from farm.database import sought
from farm.models import Activity


def list_activities(
    engine: Engine,
    limit: int,
    before: int | None = None,
    *,
    actor: str | None = None,
    action: str | None = None,
    job_id: int | None = None,
) -> Page[Activity]:
    """What was done, newest first; ``before`` goes on where the last page ended."""
    query = select(Activity).order_by(Activity.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Activity.id < min(before, MAX_ID))
    if actor:
        query = query.where(Activity.actor == sought(actor))
    if action:
        query = query.where(Activity.action == sought(action))
    if job_id is not None:
        query = query.where(Activity.job_id == min(job_id, MAX_ID))
    with Session(engine, expire_on_commit=False) as session:
        return Page.of(list(session.scalars(query)), limit)


def job_activities(engine: Engine, job_id: int, limit: int = 5) -> Sequence[Activity]:
    """The last things that people did to a job, newest first."""
    return list_activities(engine, limit, job_id=job_id).entries
