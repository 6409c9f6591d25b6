"""The users, for administrators: who may come in, and what they may do."""

from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.api.people import read_role
from dashboard.auth import identity, requires
from dashboard.context import context
from dashboard.queries.people import get_user
from farm.errors import InvalidSubmissionError
from farm.people import (
    LINK_MINUTES,
    MAX_NAME_CHARACTERS,
    MIN_PASSWORD_CHARACTERS,
    add_user,
    change_user,
    list_users,
    make_link,
)
from farm.roles import Role

blueprint = Blueprint("people", __name__, url_prefix="/people")

#: What each role may do, as the page explains it.
ROLES = {
    Role.VIEWER: "sees all, changes nothing",
    Role.SUBMITTER: "submits jobs, steers their own",
    Role.OPERATOR: "steers all jobs, and workers",
    Role.ADMIN: "makes users, gives roles",
}


@blueprint.get("")
@requires(Role.ADMIN)
def index() -> Response:
    """Everybody, and the form for somebody new."""
    return _page()


@blueprint.post("")
@requires(Role.ADMIN)
def add() -> Response:
    """Make a user; without a password they get a link to hand over."""
    name, password = request.form.get("name", "").strip(), request.form.get("password") or None
    try:
        made = add_user(context().engine, name, read_role(request.form.get("role", "")), password, by=identity().name)
    except InvalidSubmissionError as error:
        return _page(error=error)
    return _back(made.user_id) if password else link(made.user_id)


@blueprint.post("/<int:user_id>/role")
@requires(Role.ADMIN)
def role(user_id: int) -> Response:
    """Give another role."""
    return _change(user_id, role=read_role(request.form.get("role", "")))


@blueprint.post("/<int:user_id>/password")
@requires(Role.ADMIN)
def password(user_id: int) -> Response:
    """Set a password; the user is logged out everywhere."""
    return _change(user_id, password=request.form.get("password", ""))


@blueprint.post("/<int:user_id>/disable")
@requires(Role.ADMIN)
def disable(user_id: int) -> Response:
    """Lock out, at once and everywhere."""
    return _change(user_id, disabled=True)


@blueprint.post("/<int:user_id>/enable")
@requires(Role.ADMIN)
def enable(user_id: int) -> Response:
    """Let in again."""
    return _change(user_id, disabled=False)


@blueprint.post("/<int:user_id>/link")
@requires(Role.ADMIN)
def link(user_id: int) -> Response:
    """Make a link that logs this user in once, to hand over; this answer is the only one that shows it."""
    engine = context().engine
    user = get_user(engine, user_id)
    secret = make_link(engine, user_id, by=identity().name)
    return _page(link=url_for("login.enter", token=secret, _external=True), link_for=user.name)


def _change(
    user_id: int, *, role: Role | None = None, password: str | None = None, disabled: bool | None = None
) -> Response:
    try:
        change_user(context().engine, user_id, role=role, password=password, disabled=disabled, by=identity().name)
    except InvalidSubmissionError as error:
        return _page(error=error, concerned=user_id)
    return _back(user_id)


def _page(
    error: InvalidSubmissionError | None = None,
    concerned: int | None = None,
    link: str | None = None,
    link_for: str = "",
) -> Response:
    page = render_template(
        "people.html",
        users=list_users(context().engine),
        roles=ROLES,
        problems=error.problems if error else [],
        concerned=concerned,
        given=request.form if error and concerned is None else {},
        link=link,
        link_for=link_for,
        link_minutes=LINK_MINUTES,
        min_password_characters=MIN_PASSWORD_CHARACTERS,
        max_name_characters=MAX_NAME_CHARACTERS,
    )
    status = HTTPStatus.UNPROCESSABLE_ENTITY if error else HTTPStatus.CREATED if link else HTTPStatus.OK
    response = Response(page.encode("utf-8", "replace"), status, mimetype="text/html")
    if link:
        response.headers["Cache-Control"] = "no-store"
    return response


def _back(user_id: int) -> Response:
    return redirect(url_for("people.index", _anchor=f"user-{user_id}"), HTTPStatus.SEE_OTHER)
