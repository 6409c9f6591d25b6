"""Where users are made and changed: in the database that ``FARM_DATABASE_URL`` names, else over HTTP in a running farm.

The first needs no farm, nor anybody who may already log in; the second no database, and an embedded farm shows nobody
its own.
"""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from farm.errors import ConfigurationError, NotFoundError
from farm.record import find_farm
from farm.roles import Role
from producer.client.connection import Json
from producer.client.sync import Farm

if TYPE_CHECKING:
    from sqlalchemy import Engine


class Desk(Protocol):
    """What can be done to users."""

    def users(self) -> list[Json]:
        """All users by name."""

    def add(self, name: str, role: Role, password: str | None) -> None:
        """Make a user; raises InvalidSubmissionError."""

    def change(self, name: str, **changes: str | bool) -> None:
        """Change ``role``, ``password`` or ``disabled``; raises InvalidSubmissionError, NotFoundError."""

    def link(self, name: str | None) -> str:
        """A link that logs in once: this user, or whoever asks. Raises NotFoundError."""


@contextmanager
def open_desk() -> Iterator[Desk]:
    """The desk to go to. Raises ConfigurationError when the database cannot be used."""
    if not os.environ.get("FARM_DATABASE_URL"):
        with Farm() as farm:
            yield _FarmDesk(farm)
        return
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from farm.database import open_database
    from farm.settings import get_settings

    engine = open_database(get_settings())
    try:
        yield _DatabaseDesk(engine)
    except OperationalError as error:
        raise ConfigurationError(f"The database of FARM_DATABASE_URL does not answer: {error.orig}") from error
    except ProgrammingError as error:
        raise ConfigurationError(
            f"The database of FARM_DATABASE_URL has no users yet; run `farm migrate` first ({error.orig})."
        ) from error
    finally:
        engine.dispose()


def _id_of(users: list[Json], name: str) -> int:
    for user in users:
        if user["name"] == name:
            return int(user["id"])
    raise NotFoundError(f"There is no user {name!r}; `farm user list` shows all.")


class _FarmDesk:
    """In a running farm, as the user of the recorded token."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    def users(self) -> list[Json]:
        return self._farm.users()

    def add(self, name: str, role: Role, password: str | None) -> None:
        self._farm.add_user(name, role, password)

    def change(self, name: str, **changes: str | bool) -> None:
        self._farm.change_user(_id_of(self._farm.users(), name), **changes)

    def link(self, name: str | None) -> str:
        return self._farm.login_link(name)


class _DatabaseDesk:
    """In the database, as whoever may use it."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._by = getpass.getuser()

    def users(self) -> list[Json]:
        from farm.people import describe, list_users

        return [describe(user) for user in list_users(self._engine)]

    def add(self, name: str, role: Role, password: str | None) -> None:
        from farm.people import add_user

        add_user(self._engine, name, role, password, by=self._by)

    def change(self, name: str, **changes: str | bool) -> None:
        from farm.people import change_user

        role, password, disabled = changes.get("role"), changes.get("password"), changes.get("disabled")
        change_user(
            self._engine,
            _id_of(self.users(), name),
            role=None if role is None else Role(str(role)),
            password=None if password is None else str(password),
            disabled=None if disabled is None else bool(disabled),
            by=self._by,
        )

    def link(self, name: str | None) -> str:
        from farm.people import make_link

        secret = make_link(self._engine, _id_of(self.users(), name or self._by), by=self._by)
        return f"{find_farm()}/enter/{secret}"
