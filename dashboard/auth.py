"""Who asks, and whether they may. Every route needs at least a viewer to look and a submitter to change things; routes
that differ say so with ``requires`` or ``public``.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar, cast

from flask import Flask, g, redirect, request, url_for
from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.wrappers import Response

from dashboard.api.problems import COMPATIBLE, wants_problem
from dashboard.context import context
from dashboard.rates import add_headers, count_request
from dashboard.security import SAFE_METHODS
from farm.limits import Scope
from farm.models import Job
from farm.people import Identity, Token, identify_session, identify_token
from farm.roles import Role

COOKIE = "farm_session"
View = TypeVar("View", bound=Callable[..., object])


def public(view: View) -> View:
    """Let everybody in, without log-in."""
    view.__dict__["farm_role"] = None
    return view


def requires(role: Role) -> Callable[[View], View]:
    """Let only this role, and those above it, in."""

    def mark(view: View) -> View:
        view.__dict__["farm_role"] = role
        return view

    return mark


def identity() -> Identity:
    """Who asks. Only in routes that are not public."""
    found = current_identity()
    if found is None:
        raise Unauthorized("Log in first.")
    return found


def current_identity() -> Identity | None:
    """Who asks, if they said so: by the bearer token of a program, or the cookie of a browser."""
    if "identity" not in g:
        # The page that tells of a database that is away asks, too.
        g.identity = None
        engine = context().engine
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        cookie = request.cookies.get(COOKIE)
        basic = request.authorization
        if kind.lower() == "bearer":
            g.identity = identify_token(engine, token.strip())
        elif basic is not None and basic.type == "basic" and request.path.startswith(COMPATIBLE):
            # Programs that were written for A1111 know names and passwords alone.
            g.identity = identify_token(engine, basic.password or "")
        elif cookie:
            g.identity = identify_session(engine, cookie)
    return cast("Identity | None", g.identity)


def may(role: Role) -> bool:
    """Whether who asks has at least this role."""
    who = current_identity()
    return who is not None and who.role.includes(role)


def may_steer(job: Job) -> bool:
    """Whether who asks may cancel, pause, ... this job: its owner may, and operators may with all."""
    who = current_identity()
    return who is not None and owner_or_operator(who, job.owner)


def owner_or_operator(who: Identity, owner: str) -> bool:
    """Whether ``who`` may steer a job of ``owner``."""
    return who.role.includes(Role.OPERATOR) or (who.role.includes(Role.SUBMITTER) and owner == who.name)


def require_steering(job: Job) -> None:
    """Raise Forbidden unless who asks may steer this job."""
    if not may_steer(job):
        raise Forbidden(f"Job {job.id} is {job.owner or 'nobody'}'s: its owner and operators may do this.")


def refuse_beyond_scope(token: Token, role: Role) -> None:
    """Raise Forbidden unless the token is for what takes this role."""
    if token.scopes is None:
        return
    (needed,) = (scope for scope in Scope if scope.role is role)
    if needed not in token.scopes:
        raise Forbidden(
            f"This takes the scope {needed}, and the token has {', '.join(sorted(token.scopes))}. Make another token."
        )


def require_unrestricted() -> None:
    """Raise Forbidden if a token asks that can do less than its user: it must not make what can do more."""
    who = identity()
    if who.token is not None and who.token.is_restricted:
        raise Forbidden("This token is restricted: it makes no tokens, links or passwords. Log in, or take another.")


def register_auth(app: Flask) -> None:
    """Add the check before every request, and what templates ask."""

    @app.before_request
    def check() -> Response | None:
        if request.endpoint is None or request.endpoint == "static":
            return None
        view = app.view_functions[request.endpoint]
        default = Role.VIEWER if request.method in SAFE_METHODS else Role.SUBMITTER
        role = cast("Role | None", getattr(view, "farm_role", default))
        if role is None:
            return None
        who = current_identity()
        if who is None:
            if wants_problem() or request.method not in SAFE_METHODS:
                raise Unauthorized("Log in first, or send an API token as 'Authorization: Bearer ...'.")
            return redirect(url_for("login.form", next=request.full_path.rstrip("?")), HTTPStatus.SEE_OTHER)
        if who.token is not None:
            count_request(who.token)
            refuse_beyond_scope(who.token, role)
        if not who.role.includes(role):
            raise Forbidden(
                f"This takes the role {role}, and {who.name} is {who.role}. An administrator can change it."
            )
        return None

    app.after_request(add_headers)

    @app.context_processor
    def helpers() -> dict[str, object]:
        return {"current_identity": current_identity, "may": may, "may_steer": may_steer, "Role": Role}
