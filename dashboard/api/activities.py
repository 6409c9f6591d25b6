"""The activity log: who did what, when."""

from flask import Blueprint, Response, jsonify, request

from dashboard.arguments import integer, page_size
from dashboard.context import context
from dashboard.queries.activities import list_activities

blueprint = Blueprint("api_activities", __name__)


@blueprint.get("/activities")
def index() -> Response:
    """What people did, newest first; ``next`` is the ``before`` of the next page."""
    page = list_activities(
        context().engine,
        page_size(50),
        integer("before"),
        actor=request.args.get("actor"),
        action=request.args.get("action"),
        job_id=integer("job"),
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
