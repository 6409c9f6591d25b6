"""Turns requests into batches and decides which batch goes next; the Python client, which speaks for itself.

The client's names are imported with their first use: the service needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.errors import ConflictError as ConflictError
    from farm.errors import FarmError as FarmError
    from farm.errors import InvalidSubmissionError as InvalidSubmissionError
    from farm.errors import NotFoundError as NotFoundError
    from farm.errors import Problem as Problem
    from producer.client.errors import FarmRefusedError as FarmRefusedError
    from producer.client.errors import FarmUnavailableError as FarmUnavailableError
    from producer.client.errors import FarmUnreachableError as FarmUnreachableError
    from producer.client.errors import MissingPackageError as MissingPackageError
    from producer.client.errors import NoPictureError as NoPictureError
    from producer.client.errors import NotAllowedError as NotAllowedError
    from producer.client.errors import NotLoggedInError as NotLoggedInError
    from producer.client.errors import RateLimitedError as RateLimitedError
    from producer.client.farm import AsyncFarm as AsyncFarm
    from producer.client.farm import Estimate as Estimate
    from producer.client.fields import Counts as Counts
    from producer.client.image import AsyncImage as AsyncImage
    from producer.client.job import AsyncJob as AsyncJob
    from producer.client.sync import Farm as Farm
    from producer.client.sync import Image as Image
    from producer.client.sync import Job as Job
    from producer.client.tables import TableError as TableError
    from producer.grids import GridError as GridError

_HOMES = {
    "farm.errors": ("ConflictError", "FarmError", "InvalidSubmissionError", "NotFoundError", "Problem"),
    "producer.client.errors": (
        "FarmRefusedError",
        "FarmUnavailableError",
        "FarmUnreachableError",
        "MissingPackageError",
        "NoPictureError",
        "NotAllowedError",
        "NotLoggedInError",
        "RateLimitedError",
    ),
    "producer.client.farm": ("AsyncFarm", "Estimate"),
    "producer.client.fields": ("Counts",),
    "producer.client.image": ("AsyncImage",),
    "producer.client.job": ("AsyncJob",),
    "producer.client.sync": ("Farm", "Image", "Job"),
    "producer.client.tables": ("TableError",),
    "producer.grids": ("GridError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - a list all the same


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
