"""The activity log: who did what, when."""

from flask import Blueprint, Response, jsonify

from dashboard.api.operations import describe, read_query
from dashboard.api.schemas.farm import Activities, ActivitiesQuery
from dashboard.context import context
from dashboard.queries.activities import list_activities

blueprint = Blueprint("api_activities", __name__)


@blueprint.get("/activities")
@describe("people", {200: Activities}, query=ActivitiesQuery)
def index() -> Response:
    """What people did, newest first; ``next`` is the ``before`` of the next page."""
    asked = read_query(ActivitiesQuery)
    page = list_activities(
        context().engine, asked.limit, asked.before, actor=asked.actor, action=asked.action, job_id=asked.job
    )
    activities = [
        {
            "id": activity.id,
            "at": activity.at.isoformat(),
            "actor": activity.actor,
            "action": activity.action,
            "job_id": activity.job_id,
            "details": activity.details or {},
        }
        for activity in page.entries
    ]
    return jsonify({"activities": activities, "next": page.entries[-1].id if page.more else None})
