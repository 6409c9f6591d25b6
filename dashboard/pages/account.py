"""One's own account: API tokens, password, and where one is logged in."""

from dataclasses import fields
from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.auth import COOKIE, identity, require_unrestricted, requires
from dashboard.context import context
from dashboard.queries.people import get_user, list_sessions, list_tokens
from dashboard.submitting import refuse_beyond_default
from dashboard.throttle import count_attempt, forgive
from farm.errors import InvalidSubmissionError, Problem
from farm.limits import Limits, Scope
from farm.people import (
    MAX_NAME_CHARACTERS,
    MIN_PASSWORD_CHARACTERS,
    change_own_password,
    close_other_sessions,
    make_token,
    revoke_token,
)
from farm.roles import Role

blueprint = Blueprint("account", __name__, url_prefix="/account")

#: What the form says of each.
SCOPES = {
    Scope.READ: "look at everything",
    Scope.SUBMIT: "submit jobs, and steer your own",
    Scope.OPERATE: "steer all jobs, and the workers",
    Scope.ADMIN: "make users",
}
LIMITS = {
    "requests_per_minute": "Requests a minute",
    "images_per_day": "Images a day",
    "concurrent_images": "Unfinished images",
    "largest_job": "Images of one job",
}
#: What the page says after it was done.
DONE = {
    "password": "Your password is changed. You are logged out everywhere else.",
    "revoked": "The token is revoked. Programs that show it are refused from now on.",
    "elsewhere": "You are logged out everywhere else.",
}


@blueprint.get("")
def index() -> Response:
    """The page."""
    return _page()


@blueprint.post("/tokens")
@requires(Role.VIEWER)
def create_token() -> Response:
    """Make a token; this answer is the only one that ever shows it."""
    require_unrestricted()
    who, form = identity(), request.form
    try:
        limits = Limits(*(_number(form.get(one.name, ""), one.name) for one in fields(Limits)))
        refuse_beyond_default(limits)
        token = make_token(
            context().engine,
            who.user_id,
            form.get("token", ""),
            scopes=form.getlist("scopes") or None,
            limits=limits,
            days=_number(form.get("days", ""), "days"),
            by=who.name,
        )
    except InvalidSubmissionError as error:
        return _page(error=_renamed(error, "name", "token"))
    return _page(token=token)


@blueprint.post("/tokens/<int:token_id>/revoke")
@requires(Role.VIEWER)
def delete_token(token_id: int) -> Response:
    """Make a token worthless."""
    who = identity()
    revoke_token(context().engine, token_id, who.user_id, by=who.name)
    return _back("revoked")


@blueprint.post("/password")
@requires(Role.VIEWER)
def password() -> Response:
    """Change one's password, or give oneself the first one."""
    require_unrestricted()
    who, new = identity(), request.form.get("password", "")
    try:
        if new != request.form.get("again", ""):
            raise InvalidSubmissionError([Problem("again", "is not the same; write the new password twice")])
        # Whoever finds a browser open must not guess the password there.
        count_attempt(who.name)
        change_own_password(context().engine, who, request.form.get("present", ""), new, _cookie())
    except InvalidSubmissionError as error:
        if not any(problem.field in ("present", "again") for problem in error.problems):
            forgive(who.name)
        return _page(error=error)
    forgive(who.name)
    return _back("password")


@blueprint.post("/sessions/close")
@requires(Role.VIEWER)
def close_sessions() -> Response:
    """Log out in all other browsers."""
    close_other_sessions(context().engine, identity().user_id, _cookie())
    return _back("elsewhere")


def _page(token: str | None = None, error: InvalidSubmissionError | None = None) -> Response:
    engine, who = context().engine, identity()
    page = render_template(
        "account.html",
        user=get_user(engine, who.user_id),
        tokens=list_tokens(engine, who.user_id),
        sessions=list_sessions(engine, who.user_id, _cookie()),
        token=token,
        done=DONE.get(request.args.get("done", "")) if request.method == "GET" else None,
        problems=error.problems if error else [],
        given=request.form,
        min_password_characters=MIN_PASSWORD_CHARACTERS,
        max_name_characters=MAX_NAME_CHARACTERS,
        scopes=SCOPES,
        limits=LIMITS,
        defaults=context().settings.token_limits,
    )
    status = HTTPStatus.UNPROCESSABLE_ENTITY if error else HTTPStatus.CREATED if token else HTTPStatus.OK
    response = Response(page.encode("utf-8", "replace"), status, mimetype="text/html")
    if token:
        # Not even the browser's own memory shows it again.
        response.headers["Cache-Control"] = "no-store"
    return response


def _number(text: str, field: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise InvalidSubmissionError([Problem(field, "must be a whole number")])
    return int(text)


def _back(done: str) -> Response:
    return redirect(url_for("account.index", done=done), HTTPStatus.SEE_OTHER)


def _cookie() -> str:
    return request.cookies.get(COOKIE, "")


def _renamed(error: InvalidSubmissionError, field: str, name: str) -> InvalidSubmissionError:
    """The same problems, of the field as the form calls it."""
    return InvalidSubmissionError(
        [Problem(name if one.field == field else one.field, one.message) for one in error.problems]
    )
