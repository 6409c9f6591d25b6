"""Who may use the farm: users, and how they show that they are who they say.

A browser shows its session's cookie, a program a token, somebody new a link that works once. These are random secrets
of 256 bits, of which the database keeps only the SHA-256; passwords are kept as argon2id.

``by`` is the name of whoever does it, for the log; what the farm does by itself has none, and is not logged.
"""

import getpass
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from farm.activity import note
from farm.addresses import is_reached_by_others
from farm.database import sought
from farm.errors import ConfigurationError, InvalidSubmissionError, NotFoundError, Problem
from farm.limits import Limits, Scope, read_scopes
from farm.models import ApiToken, LoginLink, LoginSession, User
from farm.roles import Role
from farm.storage import sha256

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SESSION_DAYS = 30
LINK_MINUTES = 60
#: Twelve random letters are out of reach of guessing over HTTP; shorter passwords are mostly words.
MIN_PASSWORD_CHARACTERS = 10
MAX_PASSWORD_CHARACTERS = 1_000
MAX_NAME_CHARACTERS = 60
MAX_TOKEN_DAYS = 3_650
TOKEN_PREFIX = "farm_"  # noqa: S105 - by which scanners and people know what it is
HINT_CHARACTERS = 10
#: When a token was last used is written at most this often.
LAST_USED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Token:
    """The API token that was shown."""

    id: int
    scopes: frozenset[Scope] | None
    """None is all that its user may do."""
    limits: Limits
    """Its own; where it has none, the settings' count."""

    @property
    def is_restricted(self) -> bool:
        """Whether it can do less than its user."""
        return self.scopes is not None or self.limits != Limits()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks."""

    user_id: int
    name: str
    role: Role
    token: Token | None = field(default=None, compare=False)
    """Set for programs; browsers show a session."""


def add_user(engine: Engine, name: str, role: Role, password: str | None = None, *, by: str | None = None) -> Identity:
    """Make a user; raises InvalidSubmissionError for a name that is taken or a password that is too short."""
    if name == "*":
        raise _refusal("name", "would stand for everybody in policies of retention; take another")
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or name != name.strip() or not name.isprintable():
        raise _refusal("name", f"must have 1 to {MAX_NAME_CHARACTERS} printable characters, and no space at its ends")
    hashed = _hash(password) if password is not None else None
    row = {"name": name, "role": role, "password_hash": hashed}
    with engine.begin() as connection:
        user_id = connection.scalar(upsert(User).values(row).on_conflict_do_nothing().returning(User.id))
        if user_id is None:
            raise _refusal("name", f"{name!r} is taken; choose another")
        _note(connection, by, "user.add", user=name, role=role)
    return Identity(user_id, name, role)


def change_user(
    engine: Engine,
    user_id: int,
    *,
    role: Role | None = None,
    password: str | None = None,
    disabled: bool | None = None,
    by: str | None = None,
) -> None:
    """Give a user another role or password, or lock them out and in again. Raises NotFoundError.

    Whoever gets another password, or is locked out, is logged out everywhere. The last administrator who is not
    locked out stays one: InvalidSubmissionError.
    """
    values: dict[str, object] = {}
    if role is not None:
        values["role"] = role
    if password is not None:
        values["password_hash"] = _hash(password)
    if disabled is not None:
        values["disabled_at"] = func.coalesce(User.disabled_at, func.now()) if disabled else None
    with engine.begin() as connection:
        # Two administrators who demote each other at once must not both succeed.
        admins = connection.scalars(
            select(User.id)
            .where(User.role == Role.ADMIN, User.disabled_at.is_(None))
            .order_by(User.id)
            .with_for_update()
        ).all()
        loses = disabled or (role is not None and role is not Role.ADMIN)
        if loses and list(admins) == [user_id]:
            raise _refusal("role", "of the last administrator cannot be taken; make another one first")
        found = select(User.name) if not values else update(User).values(values).returning(User.name)
        name = connection.scalar(found.where(User.id == user_id))
        if name is None:
            raise NotFoundError(f"There is no user {user_id}.")
        if role is not None:
            _note(connection, by, "user.role", user=name, role=role)
        if password is not None:
            _note(connection, by, "user.password", user=name)
        if disabled is not None:
            _note(connection, by, "user.disable" if disabled else "user.enable", user=name)
        if password is not None or disabled:
            connection.execute(delete(LoginSession).where(LoginSession.user_id == user_id))
            connection.execute(delete(LoginLink).where(LoginLink.user_id == user_id))


def change_own_password(engine: Engine, who: Identity, present: str, password: str, session: str) -> None:
    """Take the new password of somebody who knows the present one, if there is one; raises InvalidSubmissionError.

    Of the browsers that are logged in only that of ``session``, its cookie's secret, stays so.
    """
    with engine.connect() as connection:
        known = connection.scalar(select(User.password_hash).where(User.id == who.user_id))
    if known is not None and check_password(engine, who.name, present) is None:
        raise _refusal("present", "is not your password")
    hashed = _hash(password)
    with engine.begin() as connection:
        connection.execute(update(User).where(User.id == who.user_id).values(password_hash=hashed))
        _close_others(connection, who.user_id, session)
        _note(connection, who.name, "user.password", user=who.name)


def list_users(engine: Engine) -> Sequence[User]:
    """All users by name."""
    from sqlalchemy.orm import Session

    with Session(engine, expire_on_commit=False) as session:
        return session.scalars(select(User).order_by(User.name)).all()


def describe(user: User) -> dict[str, Any]:
    """A user as API and command line show it."""
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role.value,
        "has_password": user.password_hash is not None,
        "disabled": user.disabled_at is not None,
        "created_at": user.created_at.isoformat(),
    }


def find_user(engine: Engine, name: str) -> Identity | None:
    """The user of this name, locked out or not."""
    with engine.connect() as connection:
        row = connection.execute(select(User.id, User.name, User.role).where(User.name == sought(name))).one_or_none()
    return None if row is None else Identity(*row)


def somebody_has_a_password(engine: Engine) -> bool:
    """Whether anybody can log in from another machine."""
    query = select(User.id).where(User.password_hash.is_not(None), User.disabled_at.is_(None)).limit(1)
    with engine.connect() as connection:
        return connection.scalar(query) is not None


def require_users(engine: Engine, host: str) -> None:
    """Raise ConfigurationError when others could reach the dashboard on ``host`` and nobody could log in."""
    # Where nothing can be found, listening will fail with its own message.
    if is_reached_by_others(host) and not somebody_has_a_password(engine):
        raise ConfigurationError(
            f"The dashboard would listen on {host}, where others can reach it, and nobody can log in yet. Make a user "
            f"first, with `farm user add NAME --role admin` (it needs FARM_DATABASE_URL, or a farm that runs on "
            f"127.0.0.1), or listen on 127.0.0.1."
        )


def local_user(engine: Engine) -> Identity:
    """The user of a farm that nobody made users for: whoever started it, as administrator without a password."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "local"
    return find_user(engine, name) or add_user(engine, name, Role.ADMIN)


def check_password(engine: Engine, name: str, password: str) -> Identity | None:
    """The user whose name and password these are, or None. An unknown name takes as long as a wrong password."""
    from argon2.exceptions import VerificationError

    query = select(User.id, User.name, User.role, User.password_hash).where(
        User.name == sought(name),
        User.disabled_at.is_(None),
    )
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    known = row.password_hash if row is not None else None
    try:
        _hasher().verify(known or _nobodys_hash(), password[:MAX_PASSWORD_CHARACTERS])
    except VerificationError:
        return None
    return Identity(row.id, row.name, row.role) if row is not None and known else None


def open_session(engine: Engine, user_id: int, *, by: str | None = None) -> str:
    """Log a browser in; returns the secret for its cookie."""
    token = secrets.token_urlsafe(32)
    with engine.begin() as connection:
        connection.execute(delete(LoginSession).where(LoginSession.expires_at < func.now()))
        connection.execute(
            insert(LoginSession).values(
                token_sha256=_digest(token), user_id=user_id, expires_at=func.now() + timedelta(days=SESSION_DAYS)
            )
        )
        _note(connection, by, "user.login")
    return token


def close_session(engine: Engine, token: str) -> None:
    """Log a browser out."""
    with engine.begin() as connection:
        connection.execute(delete(LoginSession).where(LoginSession.token_sha256 == _digest(token)))


def close_other_sessions(engine: Engine, user_id: int, session: str) -> int:
    """Log a user out in all browsers but the one whose cookie holds ``session``; returns in how many."""
    with engine.begin() as connection:
        return _close_others(connection, user_id, session)


def identify_session(engine: Engine, token: str) -> Identity | None:
    """Whose session this is, if it is one."""
    query = (
        select(User.id, User.name, User.role)
        .join(LoginSession, LoginSession.user_id == User.id)
        .where(
            LoginSession.token_sha256 == _digest(token),
            LoginSession.expires_at > func.now(),
            User.disabled_at.is_(None),
        )
    )
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else Identity(*row)


def make_token(
    engine: Engine,
    user_id: int,
    name: str,
    *,
    scopes: Collection[str] | None = None,
    limits: Limits | None = None,
    days: int | None = None,
    by: str | None = None,
) -> str:
    """A new API token of a user; it is shown this once, and never again. Raises InvalidSubmissionError.

    ``scopes`` are names of ``Scope``; ``days`` is how long it lives.
    """
    name = name.strip()
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise _refusal("name", f"must have 1 to {MAX_NAME_CHARACTERS} characters; say what the token is for")
    if days is not None and not 1 <= days <= MAX_TOKEN_DAYS:
        raise _refusal("days", f"must be a whole number from 1 to {MAX_TOKEN_DAYS}")
    limits = limits or Limits()
    limits.check()
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row = {
        "user_id": user_id,
        "name": name,
        "token_sha256": _digest(token),
        "hint": token[:HINT_CHARACTERS],
        "scopes": None if scopes is None else sorted(read_scopes(scopes)),
        "expires_at": None if days is None else func.now() + timedelta(days=days),
        **asdict(limits),
    }
    with engine.begin() as connection:
        connection.execute(insert(ApiToken).values(row))
        _note(connection, by, "token.make", token=name)
    return token


def revoke_token(engine: Engine, token_id: int, user_id: int, *, by: str | None = None) -> str:
    """Make a token of this user's worthless; returns its name. Raises NotFoundError."""
    statement = delete(ApiToken).where(ApiToken.id == token_id, ApiToken.user_id == user_id).returning(ApiToken.name)
    with engine.begin() as connection:
        name = connection.scalar(statement)
        if name is None:
            raise NotFoundError(f"You have no token {token_id}.")
        _note(connection, by, "token.revoke", token=name)
    return name


def renew_named_token(engine: Engine, user_id: int, name: str) -> str:
    """A new token in place of those of this name: for a program that starts anew and has forgotten its last one."""
    with engine.begin() as connection:
        connection.execute(delete(ApiToken).where(ApiToken.user_id == user_id, ApiToken.name == name))
    return make_token(engine, user_id, name)


def identify_token(engine: Engine, token: str) -> Identity | None:
    """Whose token this is, if it is one."""
    query = (
        select(
            User.id,
            User.name,
            User.role,
            ApiToken.id,
            func.coalesce(ApiToken.last_used_at < func.now() - timedelta(seconds=LAST_USED_SECONDS), True),
            ApiToken.scopes,
            ApiToken.requests_per_minute,
            ApiToken.images_per_day,
            ApiToken.concurrent_images,
            ApiToken.largest_job,
        )
        .join(ApiToken, ApiToken.user_id == User.id)
        .where(
            ApiToken.token_sha256 == _digest(token),
            User.disabled_at.is_(None),
            func.coalesce(ApiToken.expires_at > func.now(), True),
        )
    )
    with engine.connect() as connection:
        row = connection.execute(query).one_or_none()
        if row is None:
            return None
        user_id, name, role, token_id, is_news, scopes, *limits = row
        if is_news:
            connection.execute(update(ApiToken).where(ApiToken.id == token_id).values(last_used_at=func.now()))
            connection.commit()
    known = None if scopes is None else frozenset(map(Scope, scopes))
    if known is not None:
        role = min(role, max((scope.role for scope in known), key=_rank), key=_rank)
    return Identity(user_id, name, role, Token(token_id, known, Limits(*limits)))


def make_link(engine: Engine, user_id: int, *, by: str | None = None) -> str:
    """The secret of a link that logs this user in once, within the next hour. Raises NotFoundError."""
    token = secrets.token_urlsafe(32)
    with engine.begin() as connection:
        name = connection.scalar(select(User.name).where(User.id == user_id))
        if name is None:
            raise NotFoundError(f"There is no user {user_id}.")
        _note(connection, by, "user.link", user=name)
        connection.execute(delete(LoginLink).where(LoginLink.expires_at < func.now()))
        connection.execute(
            insert(LoginLink).values(
                token_sha256=_digest(token), user_id=user_id, expires_at=func.now() + timedelta(minutes=LINK_MINUTES)
            )
        )
    return token


def redeem_link(engine: Engine, token: str) -> Identity | None:
    """Whose link this is; it is spent with that, also if two ask at once."""
    with engine.begin() as connection:
        user_id = connection.scalar(
            delete(LoginLink)
            .where(LoginLink.token_sha256 == _digest(token), LoginLink.expires_at > func.now())
            .returning(LoginLink.user_id)
        )
        return None if user_id is None else _enabled(connection, user_id)


def _rank(role: Role) -> int:
    return list(Role).index(role)


def _enabled(connection: Connection, user_id: int) -> Identity | None:
    row = connection.execute(
        select(User.id, User.name, User.role).where(User.id == user_id, User.disabled_at.is_(None))
    ).one_or_none()
    return None if row is None else Identity(*row)


def _close_others(connection: Connection, user_id: int, session: str) -> int:
    return connection.execute(
        delete(LoginSession).where(LoginSession.user_id == user_id, LoginSession.token_sha256 != _digest(session))
    ).rowcount


def _note(connection: Connection, by: str | None, action: str, **details: Any) -> None:
    if by is not None:
        note(connection, by, action, **details)


def _digest(token: str) -> str:
    return sha256(token.encode("utf-8", "replace"))


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def _hash(password: str) -> str:
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise _refusal(
            "password",
            f"must have {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS:,} characters; a few words will do",
        )
    if not _is_text(password):
        raise _refusal("password", "holds characters that cannot be encoded; write it anew")
    return _hasher().hash(password)


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
