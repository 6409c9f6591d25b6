"""What the documents of the API tell of jobs and images, as properties: the same for the sync and the async client."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from producer.client.connection import Json
from producer.client.parameters import RowParameters

FINAL_STATES = ("completed", "failed", "cancelled")
#: What the document of an image tells of how it was made.
_PARAMETERS = frozenset({"pipeline", "prompt", "seed", *RowParameters.__annotations__})


@dataclass(frozen=True, slots=True)
class Counts:
    """Images of a job by their state."""

    total: int
    completed: int
    failed: int
    cancelled: int
    pending: int
    removed: int = 0
    """Of the completed ones: those whose pictures were removed."""

    @property
    def ended(self) -> int:
        """Those that are no longer pending."""
        return self.completed + self.failed + self.cancelled


class JobFields(ABC):
    """What is known of a job: as it was when somebody last asked (``refresh``, ``wait``, or what changed it)."""

    @property
    @abstractmethod
    def data(self) -> Json:
        """Everything that the API tells of it."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The farm's address."""

    @property
    @abstractmethod
    def receipt(self) -> Json:
        """What the farm answered to the submission: ``seed``, ``batch_count``, ``ignored_columns``. Empty elsewhere."""

    @property
    def id(self) -> int:
        """Its number."""
        return int(self.data["id"])

    @property
    def name(self) -> str:
        """Its name; empty if it has none."""
        return self.data["name"] or ""

    @property
    def owner(self) -> str:
        """Who submitted it."""
        return str(self.data["owner"])

    @property
    def pipeline(self) -> str:
        """The entry of the catalog that renders it."""
        return str(self.data["pipeline"])

    @property
    def priority(self) -> int:
        """0 to 100; higher goes first."""
        return int(self.data["priority"])

    @property
    def deadline(self) -> datetime | None:
        """When it should be done."""
        said = self.data["deadline"]
        return None if said is None else datetime.fromisoformat(said)

    @property
    def seconds_late(self) -> float | None:
        """How far behind its deadline it will be done (negative: before it); None while nobody can tell."""
        forecast = self.data.get("forecast") or {}
        return forecast.get("seconds_late")

    @property
    def state(self) -> str:
        """``queued``, ``running``, ``completed``, ``failed`` or ``cancelled``."""
        return str(self.data["state"])

    @property
    def is_paused(self) -> bool:
        """Whether no further batch of it begins."""
        return bool(self.data["paused"])

    @property
    def counts(self) -> Counts:
        """Its images by their state."""
        return Counts(**self.data["images"])

    @property
    def progress(self) -> float:
        """The share of its work that is done, 0 to 1."""
        return float(self.data["progress"])

    @property
    def seconds_left(self) -> float | None:
        """How long it will still take; None while nobody knows."""
        seconds: float | None = self.data["seconds_left"]
        return seconds

    @property
    def test_images(self) -> int | None:
        """Set during a test run: only so many images are rendered until ``resume``."""
        count: int | None = self.data["test_images"]
        return count

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes: all images have ended, or all of a test run have."""
        return self.state in FINAL_STATES or self.test_run_ended

    @property
    def test_run_ended(self) -> bool:
        """Whether all that a test run renders is rendered, and the rest waits for somebody."""
        return self.test_images is not None and self.counts.completed + self.counts.failed >= self.test_images

    @property
    def errors(self) -> Mapping[str, int]:
        """Why images failed, and how many for each reason."""
        return {error["message"]: error["count"] for error in self.data.get("errors", [])}

    @property
    def url(self) -> str:
        """Address of its page on the dashboard."""
        return f"{self.address}/jobs/{self.id}"

    def __repr__(self) -> str:
        counts = self.counts
        name = f" {self.name!r}" if self.name else ""
        failed = f", {counts.failed} failed" if counts.failed else ""
        return f"<{type(self).__name__} {self.id}{name}: {self.state}, {counts.completed}/{counts.total} done{failed}>"


class ImageFields(ABC):
    """What is known of an image."""

    @property
    @abstractmethod
    def data(self) -> Json:
        """Everything that the API tells of it."""

    @property
    @abstractmethod
    def row(self) -> Mapping[str, Any] | None:
        """The row of the table that it was made from, if its job was made by ``map``."""

    @property
    def job_id(self) -> int:
        """The job that it belongs to."""
        return int(self.data["job_id"])

    @property
    def index(self) -> int:
        """Its place in its job, counted from 0."""
        return int(self.data["index"])

    @property
    def state(self) -> str:
        """``pending``, ``completed``, ``failed`` or ``cancelled``."""
        return str(self.data["state"])

    @property
    def is_removed(self) -> bool:
        """Whether its picture was removed after it was finished."""
        return self.data.get("removed_at") is not None

    @property
    def error(self) -> str | None:
        """Why it failed."""
        error: str | None = self.data["error"]
        return error

    @property
    def prompt(self) -> str:
        """What it shows."""
        return str(self.data["prompt"])

    @property
    def seed(self) -> int:
        """The seed that it was drawn from."""
        return int(self.data["seed"])

    @property
    def parameters(self) -> Json:
        """Everything that decides what it looks like, under diffusers' names."""
        return {name: value for name, value in self.data.items() if name in _PARAMETERS}

    @property
    def download_name(self) -> str:
        """File name for saving it: ``000017_seed59.png``."""
        return str(self.data["download_name"])

    @property
    def sha256(self) -> str | None:
        """Hash of its file."""
        digest: str | None = self.data["sha256"]
        return digest

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.index} of job {self.job_id}: {self.state}, {self.prompt[:60]!r}>"
