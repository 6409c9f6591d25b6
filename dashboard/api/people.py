"""Who asks, their API tokens, and for administrators the users."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, jsonify, url_for
from werkzeug.exceptions import Forbidden

from dashboard.api.bodies import read_body
from dashboard.api.operations import describe
from dashboard.api.schemas.people import (
    LinkBody,
    LinkDocument,
    Me,
    NewToken,
    TokenBody,
    Tokens,
    UserBody,
    UserChanges,
    UserDocument,
    Users,
)
from dashboard.auth import identity, may, require_unrestricted, requires
from dashboard.context import context
from dashboard.queries.people import get_user, list_tokens
from dashboard.submitting import refuse_beyond_default, token_limits
from farm import people
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.limits import Limits, Scope
from farm.models import ApiToken
from farm.people import (
    LINK_MINUTES,
    Identity,
    add_user,
    change_user,
    find_user,
    list_users,
    make_link,
    make_token,
    revoke_token,
)
from farm.roles import Role
from producer.quotas import usage

blueprint = Blueprint("api_people", __name__)


@blueprint.get("/me")
@describe("people", {200: Me})
def me() -> Response:
    """Who asks."""
    who, limits = identity(), token_limits()
    token: dict[str, Any] | None = None
    if who.token is not None and limits is not None:
        with context().engine.connect() as connection:
            used = usage(connection, who.token.id)
        token = {
            "scopes": sorted(Scope if who.token.scopes is None else who.token.scopes),
            **asdict(limits),
            "images_today": used.today,
            "images_unfinished": used.unfinished,
        }
    return jsonify({"id": who.user_id, "name": who.name, "role": who.role, "token": token})


@blueprint.get("/tokens")
@describe("people", {200: Tokens})
def tokens() -> Response:
    """The API tokens of whoever asks: what they are for and how they begin, never the tokens themselves."""
    found = list_tokens(context().engine, identity().user_id)
    return jsonify({"tokens": [_token_json(token) for token in found]})


@blueprint.post("/tokens")
@describe("people", {201: NewToken}, body=TokenBody)
@requires(Role.VIEWER)
def create_token() -> Response:
    """Make a token for whoever asks. This answer is the only one that ever shows it."""
    require_unrestricted()
    who, given = identity(), read_body(TokenBody)
    limits = Limits(given.requests_per_minute, given.images_per_day, given.concurrent_images, given.largest_job)
    refuse_beyond_default(limits)
    token = make_token(
        context().engine, who.user_id, given.name, scopes=given.scopes, limits=limits, days=given.days, by=who.name
    )
    (newest, *_) = list_tokens(context().engine, who.user_id)
    return _created({**_token_json(newest), "token": token})


@blueprint.delete("/tokens/<int:token_id>")
@describe("people", {204: None})
@requires(Role.VIEWER)
def delete_token(token_id: int) -> tuple[str, int]:
    """Make a token of whoever asks worthless."""
    who = identity()
    revoke_token(context().engine, token_id, who.user_id, by=who.name)
    return "", HTTPStatus.NO_CONTENT


@blueprint.get("/users")
@describe("people", {200: Users})
@requires(Role.ADMIN)
def users() -> Response:
    """Everybody who may log in, or might once."""
    return jsonify({"users": [people.describe(user) for user in list_users(context().engine)]})


@blueprint.post("/users")
@describe("people", {201: UserDocument}, body=UserBody)
@requires(Role.ADMIN)
def create_user() -> Response:
    """Make a user; one without a password enters by a one-time link."""
    given, engine = read_body(UserBody), context().engine
    made = add_user(engine, given.name, read_role(given.role), given.password, by=identity().name)
    return _created(people.describe(get_user(engine, made.user_id)))


@blueprint.patch("/users/<int:user_id>")
@describe("people", {200: UserDocument}, body=UserChanges)
@requires(Role.ADMIN)
def patch_user(user_id: int) -> Response:
    """Give a user another role or password, or lock them out or in again."""
    given, engine = read_body(UserChanges), context().engine
    change_user(
        engine,
        user_id,
        role=None if given.role is None else read_role(given.role),
        password=given.password,
        disabled=given.disabled,
        by=identity().name,
    )
    return jsonify(people.describe(get_user(engine, user_id)))


@blueprint.post("/login-links")
@describe("people", {201: LinkDocument}, body=LinkBody, body_required=False, problems=(HTTPStatus.NOT_FOUND,))
@requires(Role.VIEWER)
def create_link() -> Response:
    """A link that logs in once: whoever asks, or for administrators another user."""
    require_unrestricted()
    given, who = read_body(LinkBody, required=False), identity()
    user = who if given.user in (None, who.name) else _another(given.user or "")
    secret = make_link(context().engine, user.user_id, by=who.name)
    url = url_for("login.enter", token=secret, _external=True)
    return _created({"user": user.name, "url": url, "minutes": LINK_MINUTES})


def read_role(text: str) -> Role:
    """The role of this name; raises InvalidSubmissionError."""
    try:
        return Role(text)
    except ValueError:
        raise InvalidSubmissionError([Problem("role", f"must be one of {', '.join(Role)}")]) from None


def _another(name: str) -> Identity:
    if not may(Role.ADMIN):
        raise Forbidden("Only administrators make links for others.")
    found = find_user(context().engine, name)
    if found is None:
        raise NotFoundError(f"There is no user {name!r}.")
    return found


def _created(document: dict[str, Any]) -> Response:
    response = jsonify(document)
    response.status = HTTPStatus.CREATED
    # It may hold a secret.
    response.headers["Cache-Control"] = "no-store"
    return response


def _token_json(token: ApiToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "hint": token.hint,
        "created_at": token.created_at.isoformat(),
        "last_used_at": token.last_used_at and token.last_used_at.isoformat(),
        "expires_at": token.expires_at and token.expires_at.isoformat(),
        "scopes": token.scopes,
        "requests_per_minute": token.requests_per_minute,
        "images_per_day": token.images_per_day,
        "concurrent_images": token.concurrent_images,
        "largest_job": token.largest_job,
    }
