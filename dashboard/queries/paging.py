"""Pages of lists, by key and not by offset."""

from dataclasses import dataclass
from typing import Generic, TypeVar

#: Largest number of a row that Postgres can hold; beyond it there is nothing to find.
MAX_ID = 2**63 - 1


MAX_INDEX = 2**31 - 1


Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Page(Generic[Entry]):
    """Part of a list, and whether it goes on."""

    entries: list[Entry]
    more: bool

    @classmethod
    def of(cls, entries: list[Entry], limit: int) -> "Page[Entry]":
        """From a query for one entry more than the page holds."""
        return cls(entries[:limit], len(entries) > limit)
