"""How long pictures are kept: policies, and what they remove."""

import time
from contextlib import closing

from flask import Blueprint, Response, jsonify

from dashboard.api.bodies import read_body
from dashboard.api.operations import describe
from dashboard.api.schemas.retention import Policies, PolicyBody, PolicyDocument, RunBody, RunDocument
from dashboard.auth import identity, requires
from dashboard.context import context
from farm import retention
from farm.retention import Policy, get_policy, list_policies, remove_policy, set_policy
from farm.roles import Role
from producer.retention import added_up, follow_policies, plan

blueprint = Blueprint("api_retention", __name__)

#: A request that removes pictures ends after so long; what is left is for the next one, or for the producer.
RUN_SECONDS = 10.0


@blueprint.get("/retention")
@describe("retention", {200: Policies})
def index() -> Response:
    """All policies, that for everybody (``*``) first. What nobody says is kept for ever."""
    return jsonify({"policies": [retention.describe(policy) for policy in list_policies(context().engine)]})


@blueprint.get("/retention/policies/<path:owner>")
@describe("retention", {200: PolicyDocument})
def show(owner: str) -> Response:
    """The policy that was set for this owner."""
    return jsonify(retention.describe(get_policy(context().engine, owner)))


@blueprint.put("/retention/policies/<path:owner>")
@describe("retention", {200: PolicyDocument}, body=PolicyBody)
@requires(Role.ADMIN)
def put(owner: str) -> Response:
    """Set the policy of an owner, in place of the last; ``*`` is everybody who has none. What jobs say goes before."""
    given = read_body(PolicyBody)
    policy = Policy(given.keep_days, given.keep_starred, given.max_bytes)
    return jsonify(retention.describe(set_policy(context().engine, owner, policy, identity().name)))


@blueprint.delete("/retention/policies/<path:owner>")
@describe("retention", {204: None})
@requires(Role.ADMIN)
def delete(owner: str) -> tuple[str, int]:
    """Remove the policy of an owner: that for everybody counts again."""
    remove_policy(context().engine, owner, identity().name)
    return "", 204


@blueprint.post("/retention/run")
@describe("retention", {200: RunDocument}, body=RunBody, body_required=False)
@requires(Role.ADMIN)
def run() -> Response:
    """Remove what is to go now, or with ``dry_run`` only tell of it. The producer does it by itself within minutes.

    ``finished`` is false if there is more to remove than one request can: ask again.
    """
    farm, dry_run = context(), read_body(RunBody, required=False).dry_run
    removals, finished = [], True
    if dry_run:
        removals = plan(farm.engine)
    else:
        deadline = time.monotonic() + RUN_SECONDS
        with closing(follow_policies(farm.engine, identity().name)) as steps:
            for removal in steps:
                removals.append(removal)
                if time.monotonic() > deadline:
                    finished = False
                    break
    told = [one.as_json() for one in added_up(removals)]
    return jsonify({"dry_run": dry_run, "finished": finished, "removals": told})
