"""The way in: user name and password, or a link that works once."""

from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.exceptions import TooManyRequests
from werkzeug.wrappers import Response

from dashboard.auth import COOKIE, public
from dashboard.context import context
from dashboard.throttle import count_attempt, forgive
from farm.activity import note
from farm.people import (
    SESSION_DAYS,
    Identity,
    check_password,
    close_session,
    find_user,
    open_session,
    redeem_link,
)

blueprint = Blueprint("login", __name__)


@blueprint.get("/login")
@public
def form() -> str:
    """The form."""
    return render_template("login.html", next=_inside(request.args.get("next")), problem=None, name="")


@blueprint.post("/login")
@public
def submit() -> Response:
    """Take name and password, and go where one wanted to go. Who guesses too often waits: 429."""
    name, goal = request.form.get("name", "").strip(), _inside(request.form.get("next"))
    try:
        count_attempt(name)
    except TooManyRequests as refusal:
        response = _again(goal, name, refusal.description or "", HTTPStatus.TOO_MANY_REQUESTS)
        response.headers["Retry-After"] = str(refusal.retry_after)
        return response
    who = check_password(context().engine, name, request.form.get("password", ""))
    if who is None:
        _note_refusal(name)
        return _again(goal, name, "This name and password do not match.")
    forgive(name)
    return _enter(who, goal)


@blueprint.get("/enter/<token>")
@public
def enter(token: str) -> Response:
    """Follow a link that works once."""
    who = redeem_link(context().engine, token)
    if who is None:
        problem = "This link was used before, or is too old. Make another one with: farm link"
        return _again("/", "", problem)
    return _enter(who, url_for("pages.jobs"))


@blueprint.post("/logout")
@public
def leave() -> Response:
    """Log this browser out."""
    close_session(context().engine, request.cookies.get(COOKIE, ""))
    response = redirect(url_for("login.form"), HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE)
    return response


def _again(goal: str, name: str, problem: str, status: HTTPStatus = HTTPStatus.FORBIDDEN) -> Response:
    page = render_template("login.html", next=goal, problem=problem, name=name)
    return Response(page.encode("utf-8", "replace"), status, mimetype="text/html")


def _enter(who: Identity, goal: str) -> Response:
    response = redirect(goal, HTTPStatus.SEE_OTHER)
    response.set_cookie(
        COOKIE,
        open_session(context().engine, who.user_id, by=who.name),
        max_age=SESSION_DAYS * 24 * 3600,
        httponly=True,
        # Lax: a link from elsewhere may open a page here, nothing else may come from elsewhere.
        samesite="Lax",
        secure=request.is_secure,
    )
    return response


def _note_refusal(name: str) -> None:
    """Log a wrong password under the user's name. Other names are not repeated: people type passwords there, too."""
    engine = context().engine
    known = find_user(engine, name)
    with engine.begin() as connection:
        note(connection, known.name if known else "", "user.refused", address=request.remote_addr)


def _inside(goal: str | None) -> str:
    """A path of ours to go to; what leads elsewhere leads to the first page."""
    parts = urlsplit(goal or "/")
    inside = not parts.scheme and not parts.netloc and parts.path.startswith("/") and "\\" not in (goal or "")
    return goal if goal and inside and not goal.startswith("//") else "/"
