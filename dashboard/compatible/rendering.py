"""Rendering for a caller who waits: a job of the highest priority, its end awaited, its pictures brought along.

A caller holds one of the server's threads while it waits, so the number of those who wait is limited. One that hangs
up, or has waited too long, waits for nothing any more: its job is cancelled.
"""

import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import request
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import ServiceUnavailable, TooManyRequests

from dashboard.auth import identity
from dashboard.compatible.errors import UnfinishedError
from dashboard.context import context
from dashboard.live import is_stopping
from dashboard.queries.images import ImageView, list_images
from dashboard.queries.workers import served_stages
from dashboard.removed import picture_key
from dashboard.submitting import submit
from farm.catalog import Pipeline
from farm.control import cancel_job
from farm.errors import InvalidSubmissionError, Problem
from farm.models import Job
from farm.spec import INTERACTIVE_PRIORITY
from farm.states import ImageState, JobState, Stage
from producer.intake import Intake, Row

logger = logging.getLogger(__name__)

#: Of the server's threads (``dashboard.server.THREADS``), so many may be held by callers who wait for pictures.
MAX_WAITING = 60
#: And so many by one user, who could keep out all others otherwise.
MAX_WAITING_EACH = 30
#: Images of one request.
MAX_IMAGES = 100
#: When somebody who found no place, or no worker, may ask again.
RETRY_SECONDS = 10
_NAME_CHARACTERS = 80

_lock = threading.Lock()
#: How many each user has waiting.
_waiting: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asked for, in the farm's words."""

    dialect: str
    """Whose API it came by; the name of its job begins with it."""
    pipeline: Pipeline
    prompt: str
    fields: Mapping[str, Any]
    """Further fields of the job, and parameters of all its images."""
    names: Mapping[str, str]
    """What the caller calls the farm's fields, where that is something else: refusals speak of them."""

    def stages(self) -> set[Stage]:
        """Which stages have work with it."""
        refined = self.fields.get("refiner_strength") is not None
        if self.pipeline.refiner is not None and not refined:
            split = self.fields.get("refiner_split", self.pipeline.defaults.refiner_split)
            refined = split is not None and str(split).strip().lower() != "none"
        return {Stage.BASE, Stage.REFINER} if refined else {Stage.BASE}

    def digest(self) -> str:
        """The same for the same wish."""
        said = [self.dialect, self.pipeline.name, self.prompt, dict(self.fields)]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@contextmanager
def place() -> Iterator[None]:
    """A place among those who wait; raises ServiceUnavailable when there is none, TooManyRequests when there is none
    left for this user.
    """
    name = identity().name
    remedy = f"Try again in {RETRY_SECONDS} s, or submit jobs at /api/v1/jobs, which nobody has to wait for."
    with _lock:
        if _waiting.total() >= MAX_WAITING:
            message = f"{MAX_WAITING} requests wait for their pictures already. {remedy}"
            raise ServiceUnavailable(message, retry_after=RETRY_SECONDS)
        if _waiting[name] >= MAX_WAITING_EACH:
            message = f"{MAX_WAITING_EACH} of your requests wait for their pictures already. {remedy}"
            raise TooManyRequests(message, retry_after=RETRY_SECONDS)
        _waiting[name] += 1
    try:
        yield
    finally:
        with _lock:
            _waiting.subtract({name: 1})
            if not _waiting[name]:
                del _waiting[name]


def begin(wish: Wish) -> "Rendering":
    """Submit a job for the wish. Raises InvalidSubmissionError (in the caller's words), QuotaExceededError, and
    ServiceUnavailable when no worker could render it.
    """
    _require_workers(wish)
    name = f"{wish.dialect}: {wish.prompt}"[:_NAME_CHARACTERS].replace("\0", "")
    fields = {**wish.fields, "pipeline": wish.pipeline.name, "priority": INTERACTIVE_PRIORITY, "name": name}
    try:
        receipt = submit(fields, Intake([Row({"prompt": wish.prompt})]), wish.digest)
    except InvalidSubmissionError as error:
        told = [Problem(wish.names.get(one.field, one.field), one.message) for one in error.problems]
        raise InvalidSubmissionError(told, error.total) from None
    return Rendering(receipt.job_id)


class Rendering:
    """A job whose pictures somebody waits for, in this request."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self._owner = identity().name
        #: Who sent a key comes back for the pictures.
        self._kept = "Idempotency-Key" in request.headers
        self._is_gone = request.environ.get("waitress.client_disconnected", lambda: False)
        self._deadline = time.monotonic() + context().settings.interactive_seconds

    def wait(self, *, or_cancelled: bool = False) -> list[ImageView]:
        """The finished images, once all are; ``or_cancelled``: also once the job was cancelled, what is finished then.

        Raises UnfinishedError when they do not come.
        """
        state = context().news.wait_until(self.job_id, self.ended, self.go_on) or self.ended()
        if state is None:
            raise self.leave()
        return self.images(state, or_cancelled=or_cancelled)

    def ended(self) -> JobState | None:
        """The state in which the job ended, if it did."""
        query = select(Job.state).where(Job.id == self.job_id, Job.finished_at.is_not(None))
        try:
            with context().engine.connect() as connection:
                return connection.scalar(query)
        except OperationalError as error:
            # The job does not need us to go on; nor is a restart of the database a reason to give it up.
            logger.warning("the database does not answer, job %d is waited for: %s", self.job_id, error)
            return None

    def go_on(self) -> bool:
        """Whether there is still somebody to wait, and time."""
        return not self._is_gone() and not is_stopping() and time.monotonic() < self._deadline

    def leave(self) -> UnfinishedError:
        """Give up waiting, and say why. The job is cancelled, unless its sender may come back for it."""
        if not self._kept:
            cancel_job(context().engine, self.job_id, self._owner)
        fate = "goes on; send the same again with the same Idempotency-Key" if self._kept else "was cancelled"
        if is_stopping():
            return UnfinishedError(f"The dashboard stops; job {self.job_id} {fate}.", HTTPStatus.SERVICE_UNAVAILABLE)
        seconds = context().settings.interactive_seconds
        message = f"Job {self.job_id} was not finished within {seconds:g} s and {fate}."
        return UnfinishedError(message, HTTPStatus.GATEWAY_TIMEOUT)

    def images(self, state: JobState, *, or_cancelled: bool = False) -> list[ImageView]:
        """The finished images of the job, which ended in ``state``. Raises UnfinishedError where some are not."""
        views = list_images(context().engine, self.job_id, MAX_IMAGES).entries
        failed = next((view.image for view in views if view.image.state is ImageState.FAILED), None)
        if failed is not None:
            message = f"Image {failed.index} of job {self.job_id} could not be rendered: {failed.error}"
            raise UnfinishedError(message, HTTPStatus.INTERNAL_SERVER_ERROR)
        if state is JobState.CANCELLED and not or_cancelled:
            raise UnfinishedError(f"Job {self.job_id} was cancelled by somebody.", HTTPStatus.CONFLICT)
        return [view for view in views if view.image.state is ImageState.COMPLETED]


def read_picture(view: ImageView) -> bytes:
    """The picture's bytes, as the farm made them; raises Gone, ObjectMissingError and StoreError."""
    return context().store.get(picture_key(view.image))


def _require_workers(wish: Wish) -> None:
    farm = context()
    missing = wish.stages() - served_stages(farm.engine, wish.pipeline.name, farm.settings.lease_seconds)
    if missing:
        named = " and ".join(sorted(stage.value for stage in missing))
        raise ServiceUnavailable(
            f"No worker renders the {named} of {wish.pipeline.name} now. Start one (farm worker --pipeline "
            f"{wish.pipeline.name}), ask for another model, or try again in a moment.",
            retry_after=RETRY_SECONDS,
        )
