"""Hours of the day in which a worker takes batches: ``20:00-07:00``, by this machine's clock."""

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Self

from farm.errors import ConfigurationError

_WINDOW = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")


@dataclass(frozen=True, slots=True)
class Hours:
    """Windows of a day, each from a time until another, which may be of the next morning."""

    windows: tuple[tuple[time, time], ...]

    @classmethod
    def read(cls, text: str) -> Self:
        """Of windows between commas; raises ConfigurationError."""
        windows = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            found = _WINDOW.fullmatch(part)
            try:
                if found is None:
                    raise ValueError
                begin, end = time(int(found[1]), int(found[2])), time(int(found[3]) % 24, int(found[4]))
            except ValueError:
                raise ConfigurationError(
                    f"{part!r} are no hours; write when a worker may take work as 20:00-07:00, several between commas"
                ) from None
            windows.append((begin, end))
        return cls(tuple(windows))

    def include(self, now: datetime) -> bool:
        """Whether a worker may take work now; without windows always."""
        return not self.windows or any(_within(now.time(), begin, end) for begin, end in self.windows)


def _within(now: time, begin: time, end: time) -> bool:
    return begin <= now < end if begin < end else now >= begin or now < end
