"""The way in: user name and password, or a link that works once."""

from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.auth import COOKIE, public
from dashboard.context import context
from farm.activity import note
from farm.people import SESSION_DAYS, Identity, check_password, close_session, open_session, redeem_link

blueprint = Blueprint("login", __name__)


@blueprint.get("/login")
@public
def form() -> str:
    """The form."""
    return render_template("login.html", next=_inside(request.args.get("next")), problem=None, name="")


@blueprint.post("/login")
@public
def submit() -> Response:
    """Take name and password, and go where one wanted to go."""
    name, goal = request.form.get("name", ""), _inside(request.form.get("next"))
    who = check_password(context().engine, name, request.form.get("password", ""))
    if who is None:
        page = render_template("login.html", next=goal, problem="This name and password do not match.", name=name)
        return Response(page.encode("utf-8", "replace"), HTTPStatus.FORBIDDEN, mimetype="text/html")
    return _enter(who, goal)


@blueprint.get("/enter/<token>")
@public
def enter(token: str) -> Response:
    """Follow a link that works once."""
    who = redeem_link(context().engine, token)
    if who is None:
        problem = "This link was used before, or is too old. Make another one with: farm link"
        page = render_template("login.html", next="/", problem=problem, name="")
        return Response(page, HTTPStatus.FORBIDDEN, mimetype="text/html")
    return _enter(who, url_for("pages.jobs"))


@blueprint.post("/logout")
@public
def leave() -> Response:
    """Log this browser out."""
    close_session(context().engine, request.cookies.get(COOKIE, ""))
    response = redirect(url_for("login.form"), HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE)
    return response


def _enter(who: Identity, goal: str) -> Response:
    engine = context().engine
    with engine.begin() as connection:
        note(connection, who.name, "user.login")
    response = redirect(goal, HTTPStatus.SEE_OTHER)
    response.set_cookie(
        COOKIE,
        open_session(engine, who.user_id),
        max_age=SESSION_DAYS * 24 * 3600,
        httponly=True,
        # Lax: a link from elsewhere may open a page here, nothing else may come from elsewhere.
        samesite="Lax",
        secure=request.is_secure or current_app.config["SESSION_COOKIE_SECURE"],
    )
    return response


def _inside(goal: str | None) -> str:
    """A path of ours to go to; what leads elsewhere leads to the first page."""
    parts = urlsplit(goal or "/")
    inside = not parts.scheme and not parts.netloc and parts.path.startswith("/") and "\\" not in (goal or "")
    return goal if goal and inside and not goal.startswith("//") else "/"
