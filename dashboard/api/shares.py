"""Shares of owners: how much each gets beside others."""

from flask import Blueprint, Response, jsonify

from dashboard.api.bodies import read_body
from dashboard.api.operations import describe
from dashboard.api.schemas.shares import ShareBody, ShareDocument, ShareList
from dashboard.auth import identity, requires
from dashboard.context import context
from farm.roles import Role
from farm.shares import list_shares, set_share

blueprint = Blueprint("api_shares", __name__)


@blueprint.get("/shares")
@describe("workers", {200: ShareList})
def index() -> Response:
    """The weights of owners, where they are not 1."""
    shares = [{"owner": share.owner, "weight": share.weight} for share in list_shares(context().engine)]
    return jsonify({"shares": shares})


@blueprint.put("/shares/<owner>")
@describe("workers", {200: ShareDocument}, body=ShareBody)
@requires(Role.ADMIN)
def replace(owner: str) -> Response:
    """Give an owner a weight: with 3 they get three times as much as one with 1, while both have work."""
    weight = read_body(ShareBody).weight
    set_share(context().engine, owner, weight, identity().name)
    return jsonify({"owner": owner, "weight": weight})
