"""Who asks, their API tokens, and for administrators the users."""

from http import HTTPStatus
from typing import Any, TypeVar

from flask import Blueprint, Response, jsonify, request, url_for
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.exceptions import Forbidden

from dashboard.api.submission import read_json_object
from dashboard.auth import identity, may, requires
from dashboard.context import context
from dashboard.queries.people import get_user, list_tokens
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.models import ApiToken
from farm.people import (
    LINK_MINUTES,
    Identity,
    add_user,
    change_user,
    describe,
    find_user,
    list_users,
    make_link,
    make_token,
    revoke_token,
)
from farm.roles import Role

blueprint = Blueprint("api_people", __name__)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _NewToken(_Body):
    name: str


class _NewUser(_Body):
    name: str
    role: str
    password: str | None = None


class _UserChanges(_Body):
    role: str | None = None
    password: str | None = None
    disabled: bool | None = None


class _NewLink(_Body):
    user: str | None = None


Body = TypeVar("Body", bound=_Body)


@blueprint.get("/me")
def me() -> Response:
    """Who asks."""
    who = identity()
    return jsonify({"id": who.user_id, "name": who.name, "role": who.role})


@blueprint.get("/tokens")
def tokens() -> Response:
    """The API tokens of whoever asks: what they are for and how they begin, never the tokens themselves."""
    found = list_tokens(context().engine, identity().user_id)
    return jsonify({"tokens": [_token_json(token) for token in found]})


@blueprint.post("/tokens")
@requires(Role.VIEWER)
def create_token() -> Response:
    """Make a token for whoever asks. This answer is the only one that ever shows it."""
    who = identity()
    token = make_token(context().engine, who.user_id, _read(_NewToken).name, by=who.name)
    (newest, *_) = list_tokens(context().engine, who.user_id)
    return _created({**_token_json(newest), "token": token})


@blueprint.delete("/tokens/<int:token_id>")
@requires(Role.VIEWER)
def delete_token(token_id: int) -> tuple[str, int]:
    """Make a token of whoever asks worthless."""
    who = identity()
    revoke_token(context().engine, token_id, who.user_id, by=who.name)
    return "", HTTPStatus.NO_CONTENT


@blueprint.get("/users")
@requires(Role.ADMIN)
def users() -> Response:
    """Everybody who may log in, or might once."""
    return jsonify({"users": [describe(user) for user in list_users(context().engine)]})


@blueprint.post("/users")
@requires(Role.ADMIN)
def create_user() -> Response:
    """Make a user; one without a password enters by a one-time link."""
    given, engine = _read(_NewUser), context().engine
    made = add_user(engine, given.name, read_role(given.role), given.password, by=identity().name)
    return _created(describe(get_user(engine, made.user_id)))


@blueprint.patch("/users/<int:user_id>")
@requires(Role.ADMIN)
def patch_user(user_id: int) -> Response:
    """Give a user another role or password, or lock them out or in again."""
    given, engine = _read(_UserChanges), context().engine
    change_user(
        engine,
        user_id,
        role=None if given.role is None else read_role(given.role),
        password=given.password,
        disabled=given.disabled,
        by=identity().name,
    )
    return jsonify(describe(get_user(engine, user_id)))


@blueprint.post("/login-links")
@requires(Role.VIEWER)
def create_link() -> Response:
    """A link that logs in once: whoever asks, or for administrators another user."""
    given, who = _read(_NewLink), identity()
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


def _read(model: type[Body]) -> Body:
    """The JSON body; an empty one says nothing. Raises InvalidSubmissionError."""
    try:
        return model.model_validate(read_json_object() if request.content_length else {})
    except ValidationError as error:
        problems = [Problem(".".join(map(str, one["loc"])), one["msg"].lower()) for one in error.errors()]
        raise InvalidSubmissionError(problems) from None


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
    }
