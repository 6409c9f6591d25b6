"""A job on a farm, asynchronously."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio
from typing_extensions import override

from farm.errors import FarmError
from producer.client.connection import Connection, Json
from producer.client.fields import JobFields
from producer.client.files import is_there, save_stream
from producer.client.following import follow
from producer.client.html import job_card
from producer.client.image import AsyncImage
from producer.client.meters import Meter, NotebookMeter, Place, meter
from producer.client.parallel import each
from producer.client.tables import Mapped, TableError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PAGE = 500
#: What is told of a job itself, and how far it is; the end of a test run is no event of its own.
NEWS_OF_JOBS = (
    "job.started,job.paused,job.resumed,job.changed,job.retried,"
    "job.completed,job.failed,job.cancelled,job.deleted,progress"
)
#: Around an image that has just ended, others of its batch have too.
NEIGHBOURS = 32
#: Pictures that are fetched at once.
PARALLEL = 8
#: Pictures on the card that a notebook shows.
CARD_PICTURES = 12


class AsyncJob(JobFields):
    """A job: what it was when somebody last asked, and what can be done with it."""

    def __init__(self, connection: Connection, data: Json, receipt: Json | None = None) -> None:
        self._connection = connection
        self._data = data
        self._receipt = receipt or {}
        self._mapped: Mapped | None = None
        self._thumbnails: dict[int, bytes] = {}

    @property
    @override
    def data(self) -> Json:
        return self._data

    @property
    @override
    def address(self) -> str:
        return self._connection.url

    @property
    @override
    def receipt(self) -> Json:
        return self._receipt

    async def refresh(self) -> Self:
        """Ask how it is now."""
        self._data = await self._connection.send("GET", self._path)
        return self

    async def cancel(self) -> Self:
        """Cancel it; what is finished is kept. Raises ConflictError if it ended otherwise."""
        return await self._act("POST", "/cancel")

    async def pause(self) -> Self:
        """Let no further batch of it begin. Raises ConflictError if it has ended."""
        return await self._act("POST", "/pause")

    async def resume(self) -> Self:
        """Go on with it, or with what follows a test run. Raises ConflictError if it has ended."""
        return await self._act("POST", "/resume")

    async def retry(self, *, removed: bool = False) -> Self:
        """Render its failed images again, or those whose pictures were ``removed``."""
        return await self._act("POST", "/retry", params={"removed": "true"} if removed else {})

    async def change(
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
        said = deadline.isoformat() if isinstance(deadline, datetime) else deadline
        changes = {
            "priority": priority,
            "name": name,
            "max_devices": max_devices,
            "deadline": said,
            "keep_days": keep_days,
            "keep_starred": keep_starred,
        }
        given: Json = {field: value for field, value in changes.items() if value is not None}
        if max_devices == 0:
            given["max_devices"] = None
        # What is null leaves it to the policy.
        given |= {field: None for field in ("deadline", "keep_days", "keep_starred") if changes[field] == "none"}
        return await self._act("PATCH", json=given)

    async def delete(self) -> None:
        """Delete it with its pictures. Raises ConflictError while it has not ended."""
        await self._connection.request("DELETE", self._path)

    async def wait(self, progress: bool | None = None, *, timeout: float | None = None) -> Self:
        """Wait until it, or its test run, has ended, and show the progress if that is wanted (None: in notebooks).

        Raises TimeoutError after so many seconds; the job goes on.
        """
        with meter(progress, f"job {self.id}") as shown:
            await self.wait_showing(shown, timeout)
        return self

    async def wait_showing(self, shown: Meter, timeout: float | None = None) -> None:
        """The same with a meter of the caller's."""
        try:
            with anyio.fail_after(timeout):
                async with aclosing(follow(self._connection, self.id, NEWS_OF_JOBS)) as news:
                    async for _ in news:
                        await self.refresh()
                        counts = self.counts
                        card = await self.card() if shown.wants_card else None
                        shown.show(counts.ended, self.test_images or counts.total, card)
                        if self.has_ended:
                            return
        except TimeoutError:
            raise TimeoutError(f"Job {self.id} is {self.state} after {timeout:g} s; it goes on.") from None

    def images(self, state: str | None = None, *, as_completed: bool = False) -> AsyncGenerator[AsyncImage]:
        """Its images in the order of their index, or each as it ends until the job, or its test run, has ended.

        Only those in this state, if one is given. An image that failed has ended too.
        """
        return self._as_they_end(state) if as_completed else self._in_order(state)

    async def image(self, index: int) -> AsyncImage:
        """One of its images; raises NotFoundError."""
        return self._image(await self._connection.send("GET", f"{self._path}/images/{index}"))

    async def download(
        self, directory: str | Path, *, parallel: int = PARALLEL, progress: bool | None = None
    ) -> list[Path]:
        """Save its finished pictures as ``000017_seed59.png``, so many at once; returns the paths by index.

        What is there already is kept, if it is the same picture; what was removed from the farm is left out. A file
        appears under its name only when it is complete: a download that was cut off goes on where it stopped.
        """
        with meter(progress, "downloading") as shown:
            return await self.download_showing(shown, Path(directory), parallel)

    async def download_showing(self, shown: Meter, directory: Path, parallel: int) -> list[Path]:
        """The same with a meter of the caller's."""
        directory.mkdir(parents=True, exist_ok=True)
        total = (await self.refresh()).counts.completed - self.counts.removed
        paths: dict[int, Path] = {}

        async def fetch(image: AsyncImage) -> None:
            path = directory / image.download_name
            if image.is_removed and not path.exists():
                return
            if not await is_there(path, image.sha256):
                await image.save(path)
            paths[image.index] = path
            shown.show(len(paths), max(total, len(paths)))

        await each(self._in_order("completed"), fetch, parallel)
        return [paths[index] for index in sorted(paths)]

    async def archive(self, path: str | Path) -> Path:
        """Save its finished pictures as one ZIP with a manifest of all images. Returns where it is."""
        await save_stream(self._connection, f"{self._path}/archive", Path(path))
        return Path(path)

    async def grid(
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
            return await self.grid_showing(shown, by, images, columns, cell, labels=labels)

    async def grid_showing(
        self,
        shown: Meter,
        by: str | Sequence[str] | None,
        images: str | None,
        columns: int | None,
        cell: int,
        *,
        labels: bool,
    ) -> "Picture":
        """The same with a meter of the caller's."""
        from producer import grids
        from producer.intake import ALIASES

        found = {image.index: image async for image in self._in_order("completed") if not image.is_removed}
        chosen = grids.chosen([image.data for image in found.values()], images)
        given = by.split(",") if isinstance(by, str) else by or ()
        names = [ALIASES.get(name.strip(), name.strip()) for name in given]
        layout = grids.by_values(chosen, names) if names else grids.in_order(chosen, columns)
        sheet = grids.Sheet(layout, cell, labels=labels)
        pasted = 0

        async def wanted() -> AsyncIterator[AsyncImage]:
            for document in chosen:
                yield found[document["index"]]

        async def paste(image: AsyncImage) -> None:
            nonlocal pasted
            sheet.paste(image.index, await image.pil())
            pasted += 1
            shown.show(pasted, len(chosen))

        await each(wanted(), paste, PARALLEL)
        sheet.picture.info["images"] = len(chosen)
        return sheet.picture

    def with_table(self, mapped: Mapped) -> Self:
        """The job, which knows the table that it was made from."""
        self._mapped = mapped
        return self

    async def table(self) -> Any:
        """The table that ``map`` made it from, with a line per image: its row's columns, and ``tables.IMAGE_COLUMNS``.

        Raises TableError for a job that was not made by ``map``.
        """
        if self._mapped is None:
            raise TableError("Only a job that farm.map(function, table) has just made knows its table.")
        return self._mapped.joined([image.data async for image in self._in_order()])

    async def card(self) -> str:
        """HTML that shows its state and its first pictures."""
        missing = min(CARD_PICTURES, self.counts.completed - self.counts.removed) - len(self._thumbnails)
        if missing > 0:
            parameters = {"state": "completed", "limit": CARD_PICTURES}
            page = await self._connection.send("GET", f"{self._path}/images", params=parameters)
            for document in page["images"]:
                if (
                    document["thumbnail_url"]
                    and document["index"] not in self._thumbnails
                    and len(self._thumbnails) < CARD_PICTURES
                ):
                    self._thumbnails[document["index"]] = await self._image(document).thumbnail_bytes()
        return job_card(self, self._thumbnails)

    async def show_live(self, place: Place) -> None:
        """Keep its card up to date in a notebook, until it has ended."""
        # A job of its own: what is known of this one changes only when somebody asks.
        shown = AsyncJob(self._connection, self._data)
        try:
            await shown.wait_showing(NotebookMeter(f"job {self.id}", place))
        except FarmError as error:
            place.show(f"{job_card(shown, shown._thumbnails)}<div>{escape(str(error))}</div>", str(error))

    def _repr_html_(self) -> str:
        return job_card(self, self._thumbnails)

    @property
    def _path(self) -> str:
        return f"/api/v1/jobs/{self.id}"

    def _image(self, document: Json) -> AsyncImage:
        row = self._mapped.row_of(document["index"]) if self._mapped is not None else None
        return AsyncImage(self._connection, document, row)

    async def _act(self, method: str, action: str = "", **arguments: Any) -> Self:
        # To pause, cancel or retry twice is as good as once.
        changed = await self._connection.send(method, self._path + action, repeatable=True, **arguments)
        self._data = {**self._data, **changed}
        return self

    async def _in_order(self, state: str | None = None, after: int = -1) -> AsyncGenerator[AsyncImage]:
        place: int | None = after
        while place is not None:
            parameters: dict[str, str | int] = {"limit": PAGE}
            parameters |= {"after": place} if place >= 0 else {}
            parameters |= {"state": state} if state is not None else {}
            page = await self._connection.send("GET", f"{self._path}/images", params=parameters)
            for document in page["images"]:
                yield self._image(document)
            place = page["next"]

    async def _as_they_end(self, state: str | None) -> AsyncGenerator[AsyncImage]:
        seen = _Seen()
        async with aclosing(follow(self._connection, self.id)) as news:
            async for one in news:
                if one.image is not None:
                    fresh = self._neighbours(one.image) if one.image not in seen else None
                elif one.kind == "progress":
                    continue
                else:
                    await self.refresh()
                    fresh = self._in_order(after=seen.frontier - 1) if self.counts.ended > len(seen) else None
                if fresh is not None:
                    async with aclosing(fresh) as images:
                        async for image in images:
                            if image.state != "pending" and seen.add(image.index) and state in (None, image.state):
                                yield image
                            if one.image is None and len(seen) >= self.counts.ended:
                                break
                if one.image is not None and self.test_images is not None:
                    await self.refresh()
                if self.has_ended and len(seen) >= self.counts.ended:
                    return

    async def _neighbours(self, index: int) -> AsyncGenerator[AsyncImage]:
        """An image and those that follow it, of one page."""
        parameters = {"limit": NEIGHBOURS} | ({"after": index - 1} if index else {})
        page = await self._connection.send("GET", f"{self._path}/images", params=parameters)
        for document in page["images"]:
            yield self._image(document)


class _Seen:
    """Indices of images that were seen to have ended."""

    def __init__(self) -> None:
        #: All below were seen.
        self.frontier = 0
        self._beyond: set[int] = set()

    def add(self, index: int) -> bool:
        """Whether it was not seen before."""
        if index in self:
            return False
        self._beyond.add(index)
        while self.frontier in self._beyond:
            self._beyond.remove(self.frontier)
            self.frontier += 1
        return True

    def __contains__(self, index: int) -> bool:
        return index < self.frontier or index in self._beyond

    def __len__(self) -> int:
        return self.frontier + len(self._beyond)
