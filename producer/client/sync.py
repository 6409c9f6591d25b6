"""The client for programs that are not async: the same things, each done by its async counterpart."""

import builtins
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

import httpx
from typing_extensions import override

from producer.client.blocking import Caller, begin, call, close_soon, iterate
from producer.client.connection import PATIENCE_SECONDS, Json
from producer.client.farm import AsyncFarm, Estimate
from producer.client.fields import ImageFields, JobFields
from producer.client.image import AsyncImage
from producer.client.job import PARALLEL, AsyncJob
from producer.client.meters import Meter, Place, meter
from producer.client.tables import Mapped

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from PIL.Image import Image as Picture

    from producer.client.parameters import Parameters, PictureLike


class Farm:
    """A connection to a farm. Without a URL: ``FARM_URL``, else the farm that ``farm up`` last recorded.

    Without an API token: ``FARM_TOKEN``, else what ``farm up`` recorded for this address. A farm that has answered once
    is given ``patience_seconds`` to come back when it does not.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._farm = AsyncFarm(url, token, patience_seconds=patience_seconds)
        # Without `close`, connections are closed when neither the farm nor a job or image of it is in use any more.
        weakref.finalize(self._farm.connection, close_soon, self._farm.connection.http.aclose)

    @property
    def url(self) -> str:
        """The farm's address."""
        return self._farm.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        call(self._farm.close)

    def submit(
        self,
        prompts: Iterable[str] | None = None,
        *,
        rows: Iterable[Mapping[str, Any]] | None = None,
        file: str | Path | None = None,
        sweep: Mapping[str, list[Any]] | str | None = None,
        idempotency_key: str | None = None,
        **parameters: "Unpack[Parameters]",
    ) -> "Job":
        """Submit prompts, rows (each with its prompt and what it sets for itself) or a file of them, as one job.

        ``sweep`` has parameters that take several values in turn. Pictures may be paths, bytes or PIL images; they are
        uploaded first. Rows may come from an iterator, however many. A submission that is made again under its
        ``idempotency_key`` is the same job; without one, it gets a key of its own, so that lost answers do no harm.

        Raises InvalidSubmissionError, and then nothing was submitted; RateLimitedError beyond a quota.
        """
        caller = Caller()
        return Job(
            caller.call(
                self._farm.submit,
                _items(caller, prompts),
                rows=_items(caller, rows),
                file=file,
                sweep=sweep,
                idempotency_key=idempotency_key,
                **parameters,
            )
        )

    def map(
        self,
        function: Callable[[Json], str | Mapping[str, Any]],
        table: Any,
        *,
        idempotency_key: str | None = None,
        **parameters: "Unpack[Parameters]",
    ) -> "Job":
        """Submit what ``function`` makes of each row of a table, given as a dict: a prompt, or a dict of parameters.

        The table is a pandas or polars data frame, or a list of dicts. Images know their ``row``, the job its
        ``table``. Raises InvalidSubmissionError (its lines are rows, counted from 1) and TableError.
        """
        # The function is called here, where it may use this farm.
        mapped, caller = Mapped(function, table), Caller()
        rows = caller.items(mapped.parameters())
        return Job(caller.call(self._farm.submit_mapped, mapped, rows, idempotency_key, **parameters))

    def estimate(
        self,
        prompts: Iterable[str] | None = None,
        *,
        rows: Iterable[Mapping[str, Any]] | None = None,
        file: str | Path | None = None,
        sweep: Mapping[str, list[Any]] | str | None = None,
        **parameters: "Unpack[Parameters]",
    ) -> Estimate:
        """What submitting the same would come to, without submitting it; raises InvalidSubmissionError."""
        caller = Caller()
        prompts, rows = _items(caller, prompts), _items(caller, rows)
        return caller.call(self._farm.estimate, prompts, rows=rows, file=file, sweep=sweep, **parameters)

    def jobs(self, limit: int = 20, state: str | None = None) -> "list[Job]":
        """The newest jobs, newest first; only those in this state, if one is given."""
        return [Job(job) for job in call(self._farm.jobs, limit, state)]

    def job(self, job_id: int) -> "Job":
        """One job, as it is now; raises NotFoundError."""
        return Job(call(self._farm.job, job_id))

    def upload(self, picture: "PictureLike") -> str:
        """Store a picture that goes in, if it is not there yet; returns the name under which a spec speaks of it.

        Raises InvalidSubmissionError when it is no picture.
        """
        return call(self._farm.upload, picture)

    def pipelines(self) -> list[Json]:
        """The catalog's pipelines with their defaults and limits."""
        return call(self._farm.pipelines)

    def workers(self) -> list[Json]:
        """All workers of the last hour, the living first."""
        return call(self._farm.workers)

    def queues(self) -> list[Json]:
        """Per pipeline and stage: what waits, how long it will take, and what holds it up."""
        return call(self._farm.queues)

    def words(self) -> dict[str, list[str]]:
        """The lists of words for prompt templates, by name."""
        return call(self._farm.words)

    def save_words(self, name: str, text: str) -> None:
        """Store a list of words, one a line; raises InvalidSubmissionError."""
        call(self._farm.save_words, name, text)

    def delete_words(self, name: str) -> None:
        """Remove a list of words; raises NotFoundError."""
        call(self._farm.delete_words, name)

    def me(self) -> Json:
        """Who the token's user is: ``id``, ``name``, ``role``."""
        return call(self._farm.me)

    def shares(self) -> list[Json]:
        """Owners whose weight is not 1: how much they get beside others."""
        return call(self._farm.shares)

    def set_share(self, owner: str, weight: float) -> Json:
        """Give an owner a weight (above 0, at most 1000). For administrators."""
        return call(self._farm.set_share, owner, weight)

    def users(self) -> list[Json]:
        """All users, for administrators."""
        return call(self._farm.users)

    def add_user(self, name: str, role: str, password: str | None = None) -> Json:
        """Make a user, as administrator; raises InvalidSubmissionError."""
        return call(self._farm.add_user, name, role, password)

    def change_user(self, user_id: int, **changes: str | bool) -> Json:
        """Give a user another ``role`` or ``password``, or lock them out (``disabled``), as administrator."""
        return call(self._farm.change_user, user_id, **changes)

    def login_link(self, name: str | None = None) -> str:
        """A link that logs the token's user in once; for administrators also another user."""
        return call(self._farm.login_link, name)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Anything else of the HTTP API (``/api/v1/...``), with httpx's arguments; raises FarmError."""
        return call(self._farm.request, method, path, **arguments)


class Job(JobFields):
    """A job: what it was when somebody last asked, and what can be done with it. A notebook shows it live."""

    def __init__(self, job: AsyncJob) -> None:
        self._job = job
        self._live: Future[None] | None = None

    @property
    @override
    def data(self) -> Json:
        return self._job.data

    @property
    @override
    def address(self) -> str:
        return self._job.address

    @property
    @override
    def receipt(self) -> Json:
        return self._job.receipt

    def refresh(self) -> Self:
        """Ask how it is now."""
        call(self._job.refresh)
        return self

    def cancel(self) -> Self:
        """Cancel it; what is finished is kept. Raises ConflictError if it ended otherwise."""
        call(self._job.cancel)
        return self

    def pause(self) -> Self:
        """Let no further batch of it begin. Raises ConflictError if it has ended."""
        call(self._job.pause)
        return self

    def resume(self) -> Self:
        """Go on with it, or with what follows a test run. Raises ConflictError if it has ended."""
        call(self._job.resume)
        return self

    def retry(self, *, removed: bool = False) -> Self:
        """Render its failed images again, or those whose pictures were ``removed``."""
        call(self._job.retry, removed=removed)
        return self

    def change(
        self,
        *,
        priority: int | str | None = None,
        name: str | None = None,
        max_devices: int | None = None,
        deadline: datetime | str | None = None,
        keep_days: int | Literal["none"] | None = None,
        keep_starred: bool | Literal["none"] | None = None,
    ) -> Self:
        """Change what is given of it: its priority (0 to 100, or a class as "high"), its name, how many devices it may
        have at once (0: as many as there are), when it should be done, how long its pictures are kept (``none``: as its
        owner's policy says). Raises InvalidSubmissionError, ConflictError.
        """
        call(
            self._job.change,
            priority=priority,
            name=name,
            max_devices=max_devices,
            deadline=deadline,
            keep_days=keep_days,
            keep_starred=keep_starred,
        )
        return self

    def delete(self) -> None:
        """Delete it with its pictures. Raises ConflictError while it has not ended."""
        call(self._job.delete)

    def wait(self, progress: bool | None = None, *, timeout: float | None = None) -> Self:
        """Wait until it, or its test run, has ended, and show the progress if that is wanted (None: in notebooks).

        Raises TimeoutError after so many seconds; the job goes on.
        """
        with meter(progress, f"job {self.id}") as shown:
            caller = Caller()
            caller.call(self._job.wait_showing, _MeterOfCaller(caller, shown), timeout)
        return self

    def images(self, state: str | None = None, *, as_completed: bool = False) -> "Iterator[Image]":
        """Its images in the order of their index, or each as it ends until the job, or its test run, has ended.

        Only those in this state, if one is given. An image that failed has ended too.
        """
        return map(Image, iterate(self._job.images(state, as_completed=as_completed)))

    def image(self, index: int) -> "Image":
        """One of its images; raises NotFoundError."""
        return Image(call(self._job.image, index))

    def download(self, directory: str | Path, *, parallel: int = PARALLEL, progress: bool | None = None) -> list[Path]:
        """Save its finished pictures as ``000017_seed59.png``, so many at once; returns the paths by index.

        What is there already is kept, if it is the same picture. A file appears under its name only when it is
        complete: a download that was cut off goes on where it stopped.
        """
        with meter(progress, "downloading") as shown:
            caller = Caller()
            return caller.call(self._job.download_showing, _MeterOfCaller(caller, shown), Path(directory), parallel)

    def archive(self, path: str | Path) -> Path:
        """Save its finished pictures as one ZIP with a manifest of all images. Returns where it is."""
        return call(self._job.archive, path)

    def grid(
        self,
        by: str | Sequence[str] | None = None,
        *,
        images: str | None = None,
        columns: int | None = None,
        cell: int = 256,
        labels: bool = True,
        progress: bool | None = None,
    ) -> "Picture":
        """One picture of its finished ones: in reading order, or with columns (and rows) ``by`` one or two parameters.

        ``images`` chooses some (``"0,5,7-9"``), ``cell`` is the edge of one in pixels; the picture's ``info`` has the
        number of ``images``. Raises GridError.
        """
        with meter(progress, "pasting") as shown:
            caller = Caller()
            return caller.call(
                self._job.grid_showing, _MeterOfCaller(caller, shown), by, images, columns, cell, labels=labels
            )

    def table(self) -> Any:
        """The table that ``map`` made it from, with a line per image: its row's columns, and ``tables.IMAGE_COLUMNS``.

        Raises TableError for a job that was not made by ``map``.
        """
        return call(self._job.table)

    def _repr_html_(self) -> str:
        return call(self._job.card)

    def _ipython_display_(self) -> None:
        place = Place()
        place.show(self._repr_html_(), repr(self))
        if not self.has_ended:
            self._live = begin(partial(self._job.show_live, place))


class Image(ImageFields):
    """One picture of a job, as it was when somebody asked for it. A notebook shows it."""

    def __init__(self, image: AsyncImage) -> None:
        self._image = image

    @property
    @override
    def data(self) -> Json:
        return self._image.data

    @property
    @override
    def row(self) -> Mapping[str, Any] | None:
        return self._image.row

    def refresh(self) -> Self:
        """Ask for it anew."""
        call(self._image.refresh)
        return self

    def bytes(self) -> builtins.bytes:
        """Its file, as it was delivered. Raises NoPictureError until it is finished."""
        return call(self._image.bytes)

    def pil(self) -> "Picture":
        """Its picture; of latents their thumbnail. Raises NoPictureError until it is finished."""
        return call(self._image.pil)

    def thumbnail(self) -> "Picture":
        """A small version of it. Raises NoPictureError until it is finished."""
        return call(self._image.thumbnail)

    def latents(self) -> "numpy.typing.NDArray[numpy.floating[Any]]":
        """Its latents (4, height / 8, width / 8), of an image with the ``output_format`` latents.

        Raises NoPictureError for others, MissingPackageError without numpy and safetensors.
        """
        return call(self._image.latents)

    def save(self, path: str | Path) -> Path:
        """Save its file; a directory gets it under ``download_name``. Returns where it is."""
        return call(self._image.save, path)

    def _repr_png_(self) -> "builtins.bytes | None":
        return call(self._image.png) if self.state == "completed" and not self.is_removed else None


class _MeterOfCaller(Meter):
    """A meter in the thread of whoever waits."""

    def __init__(self, caller: Caller, shown: Meter) -> None:
        self.wants_card = shown.wants_card
        self._caller, self._shown = caller, shown

    @override
    def show(self, done: float, total: float, card: str | None = None) -> None:
        self._caller.soon(partial(self._shown.show, done, total, card))


def _items(caller: Caller, source: Any) -> Any:
    """What is already there is handed over as it is, an iterator's items are taken in the caller's thread."""
    return caller.items(source) if isinstance(source, Iterator) else source
