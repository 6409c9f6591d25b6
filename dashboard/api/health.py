"""Signs of life for load balancers and people."""

from http import HTTPStatus

import redis
from flask import Blueprint, Response, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dashboard.auth import public
from dashboard.context import context
from farm.errors import FarmError

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@public
def healthz() -> Response:
    """This process answers."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
@public
def readyz() -> tuple[Response, int]:
    """Database, broker and store answer too; what does not is named."""
    farm = context()
    checks = {}
    try:
        with farm.engine.connect() as connection:
            connection.execute(text("SELECT 1 FROM jobs LIMIT 1"))
        checks["database"] = "ok"
    except SQLAlchemyError as error:
        checks["database"] = str(error).splitlines()[0]
    try:
        farm.board.check()
        checks["broker"] = "ok"
    except redis.RedisError as error:
        checks["broker"] = str(error)
    try:
        farm.store.check()
        checks["store"] = "ok"
    except FarmError as error:
        checks["store"] = str(error)
    ready = all(answer == "ok" for answer in checks.values())
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return jsonify({"status": "ok" if ready else "not ready", "checks": checks}), status
