"""Which pictures are meant: by state, marks, words, seed or number. One value, for galleries, marks and downloads."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Text, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import INT4MULTIRANGE

from farm.errors import InvalidSubmissionError, Problem
from farm.models import Image, Job
from farm.spec import MAX_SEED
from farm.states import ImageState, JobState

MAX_SEARCH_CHARACTERS = 500
#: Ranges of one selection; a million single pictures in a row are but one.
MAX_RANGES = 100_000
_MAX_INDEX = 2**31 - 2


class Mark(StrEnum):
    """What people think of a picture."""

    STARRED = "starred"
    REJECTED = "rejected"
    UNMARKED = "unmarked"


#: As the indexes on tags have it.
TAGGED: ColumnElement[bool] = Image.tags != literal_column("'{}'::text[]")
RATINGS = {Mark.STARRED: 1, Mark.REJECTED: -1, Mark.UNMARKED: 0}


@dataclass(frozen=True, slots=True)
class Indices:
    """Some of a job's pictures by their index: ranges (first, last), in order, that do not touch."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, indices: Iterable[int]) -> "Indices":
        """From single numbers, in any order."""
        return cls.joined((index, index) for index in indices)

    @classmethod
    def joined(cls, ranges: Iterable[tuple[int, int]]) -> "Indices":
        """From ranges in any order, which may overlap."""
        result: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if result and first <= result[-1][1] + 1:
                result[-1] = (result[-1][0], max(last, result[-1][1]))
            else:
                result.append((first, last))
        return cls(tuple(result))

    @classmethod
    def read(cls, text: str, field: str = "images") -> "Indices":
        """From ``0,5,7-9``. Raises InvalidSubmissionError."""
        ranges = []
        for part in text.split(","):
            first, dash, last = (piece.strip() for piece in part.partition("-"))
            numbers = (first, last) if dash else (first, first)
            if not all(number.isascii() and number.isdigit() and len(number) <= 10 for number in numbers):
                shown = part.strip()[:40]
                raise _refusal(field, f"{shown!r} is no picture; write numbers and ranges such as 0,5,7-9")
            low, high = int(numbers[0]), int(numbers[1])
            if not low <= high <= _MAX_INDEX:
                raise _refusal(field, f"{part.strip()} is no range; write the smaller number first")
            ranges.append((low, high))
        if len(ranges) > MAX_RANGES:
            raise _refusal(field, f"has {len(ranges):,} parts, and at most {MAX_RANGES:,} are taken; take fewer")
        return cls.joined(ranges)

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class PictureFilter:
    """Pictures that are all of this; what is None does not matter."""

    state: ImageState | None = None
    mark: Mark | None = None
    tag: str | None = None
    text: str | None = None
    """Words of the prompt, as one writes them into a search engine: ``fox -snow "red hair"``."""
    seed: int | None = None
    indices: Indices | None = None

    def __post_init__(self) -> None:
        """Refuse what no database can be asked. Raises InvalidSubmissionError."""
        if self.text is not None and len(self.text) > MAX_SEARCH_CHARACTERS:
            raise _refusal("q", f"has {len(self.text):,} characters; at most {MAX_SEARCH_CHARACTERS} are taken")
        for field, value in (("q", self.text), ("tag", self.tag)):
            if value is not None and ("\0" in value or not _encodable(value)):
                raise _refusal(field, "holds characters that no prompt can hold; remove them")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise _refusal("seed", f"must be a whole number from 0 to {MAX_SEED}")

    @property
    def everything(self) -> bool:
        """Whether it lets every picture through."""
        return self == PictureFilter()

    def as_json(self) -> dict[str, Any]:
        """What it asks for, under the names that addresses and the API use."""
        values = {
            "state": self.state and self.state.value,
            "mark": self.mark and self.mark.value,
            "tag": self.tag,
            "q": self.text,
            "seed": self.seed,
            "images": None if self.indices is None else str(self.indices),
        }
        return {name: value for name, value in values.items() if value is not None}

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row of images must fulfil.

        State and rating are written out and not bound: only so can the planner know the partial index for them.
        """
        wanted: list[ColumnElement[bool]] = []
        if self.state is not None:
            wanted.append(Image.state == bindparam(None, self.state, type_=Image.state.type, literal_execute=True))
        if self.mark is not None:
            wanted.append(Image.rating == literal_column(str(RATINGS[self.mark])))
        if self.tag is not None:
            wanted += [Image.tags.contains([self.tag]), TAGGED]
        if self.text is not None:
            wanted.append(Image.words.bool_op("@@")(func.websearch_to_tsquery(literal_column("'simple'"), self.text)))
        if self.seed is not None:
            wanted.append(Image.seed == self.seed)
        if self.indices is not None:
            wanted += _among(self.indices)
        return wanted

    def conditions_everywhere(self) -> list[ColumnElement[bool]]:
        """The same over all jobs, where it helps to know which jobs have such pictures at all."""
        wanted = self.conditions()
        if self.state is ImageState.PENDING:
            wanted.append(Image.job_id.in_(select(Job.id).where(Job.finished_at.is_(None))))
        elif self.state is ImageState.CANCELLED:
            wanted.append(Image.job_id.in_(select(Job.id).where(Job.state == JobState.CANCELLED)))
        return wanted


def _among(indices: Indices) -> list[ColumnElement[bool]]:
    if not indices.ranges:
        return [literal_column("false")]
    ranges = "{" + ",".join(f"[{first},{last + 1})" for first, last in indices.ranges) + "}"
    inside = cast(bindparam(None, ranges, type_=Text), INT4MULTIRANGE).bool_op("@>")(Image.index)
    return [Image.index >= indices.ranges[0][0], Image.index <= indices.ranges[-1][1], inside]


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
