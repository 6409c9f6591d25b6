"""What an API token lets its bearer do: scopes, and limits of how much."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from enum import StrEnum

from farm.errors import InvalidSubmissionError, Problem
from farm.roles import Role

#: The largest limit that the database holds.
MAX_LIMIT = 2**31 - 1


class Scope(StrEnum):
    """What a token is for. A route that takes a role of its user takes this scope of the token."""

    READ = "read"
    """Look at everything that a viewer may see."""
    SUBMIT = "submit"
    """Submit jobs, steer one's own, mark pictures."""
    OPERATE = "operate"
    """Steer everybody's jobs, and the workers; of operators' tokens."""
    ADMIN = "admin"
    """Make users; of administrators' tokens."""

    @property
    def role(self) -> Role:
        """The role whose rights it stands for."""
        return list(Role)[list(Scope).index(self)]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much; None is without a limit."""

    requests_per_minute: int | None = None
    images_per_day: int | None = None
    """Images submitted per day (UTC)."""
    concurrent_images: int | None = None
    """Images that are submitted and not finished."""
    largest_job: int | None = None
    """Images of one job."""

    def __or__(self, defaults: "Limits") -> "Limits":
        """These, and where there are none the others."""
        return Limits(*(_either(getattr(self, one.name), getattr(defaults, one.name)) for one in fields(self)))

    def exceeding(self, allowed: "Limits") -> str | None:
        """The first limit that is more than allowed."""
        for one in fields(self):
            own, most = getattr(self, one.name), getattr(allowed, one.name)
            if own is not None and most is not None and own > most:
                return one.name
        return None

    def check(self) -> None:
        """Raise InvalidSubmissionError for limits that cannot be."""
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not 1 <= value <= MAX_LIMIT:
                raise InvalidSubmissionError([Problem(one.name, f"must be a whole number from 1 to {MAX_LIMIT}")])


def read_scopes(names: Collection[str]) -> frozenset[Scope]:
    """The scopes of these names; raises InvalidSubmissionError."""
    try:
        scopes = frozenset(Scope(name) for name in names)
    except ValueError:
        raise InvalidSubmissionError([Problem("scopes", f"must be some of {', '.join(Scope)}")]) from None
    if not scopes:
        message = f"are none; give some of {', '.join(Scope)}, or leave them out"
        raise InvalidSubmissionError([Problem("scopes", message)])
    return scopes


def _either(own: int | None, default: int | None) -> int | None:
    return default if own is None else own
