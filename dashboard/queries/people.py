"""What pages and API show of users, their tokens and sessions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from farm.errors import NotFoundError
from farm.models import ApiToken, LoginSession, User
from farm.storage import sha256


@dataclass(frozen=True, slots=True)
class SessionView:
    """A browser that is logged in."""

    created_at: datetime
    is_this: bool
    """Whether it is the one that asks."""


def get_user(engine: Engine, user_id: int) -> User:
    """One user; raises NotFoundError."""
    with Session(engine, expire_on_commit=False) as session:
        user = session.get(User, user_id)
    if user is None:
        raise NotFoundError(f"There is no user {user_id}.")
    return user


def list_tokens(engine: Engine, user_id: int) -> Sequence[ApiToken]:
    """A user's API tokens, newest first."""
    with Session(engine, expire_on_commit=False) as session:
        return session.scalars(select(ApiToken).where(ApiToken.user_id == user_id).order_by(ApiToken.id.desc())).all()


def list_sessions(engine: Engine, user_id: int, cookie: str) -> list[SessionView]:
    """Where a user is logged in, the newest first; ``cookie`` is what the browser that asks shows."""
    query = (
        select(LoginSession.created_at, LoginSession.token_sha256)
        .where(LoginSession.user_id == user_id, LoginSession.expires_at > func.now())
        .order_by(LoginSession.created_at.desc())
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    this = sha256(cookie.encode("utf-8", "replace"))
    return [SessionView(row.created_at, row.token_sha256 == this) for row in rows]
