"""Pictures as one ZIP, made while it is sent: rows come page by page, pictures one by one, the manifest from a file.

Nothing is compressed: pictures are already. What fails midway ends the connection, so that no one takes half of them
for all.
"""

import csv
import io
import json
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

from flask import Response
from werkzeug.exceptions import ServiceUnavailable
from zipstream import ZIP_STORED, ZipStream

from dashboard.queries.images import ImageView
from farm.spec import ImageParameters
from farm.storage import ObjectStore, get_verified

#: Pictures that are fetched while one is sent.
READ_AHEAD = 4
#: Each takes a thread of the server as long as its reader takes: the pages must still get some.
MAX_AT_ONCE = 3
RETRY_SECONDS = 30
_CHUNK = 64 * 1024
#: What spreadsheets take for a formula at the beginning of a cell.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = (
    "name",
    "job_id",
    "index",
    "state",
    "error",
    "rating",
    "tags",
    "sha256",
    "removed_at",
    *ImageParameters.model_fields,
)

_places = threading.BoundedSemaphore(MAX_AT_ONCE)


def archive_response(
    store: ObjectStore, images: Iterator[ImageView], filename: str, *, folders: bool = False
) -> Response:
    """The answer that sends the ZIP; ``folders`` puts each job's pictures into a folder of its own.

    Raises ServiceUnavailable while too many others are being sent.
    """
    place = _Place.taken()
    response = Response(place.until_end(stream_archive(store, images, folders=folders)), mimetype="application/zip")
    # Also if nobody reads a byte of it.
    response.call_on_close(place.free)
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.headers["Cache-Control"] = "no-store"
    return response


def stream_archive(store: ObjectStore, images: Iterator[ImageView], *, folders: bool = False) -> Iterator[bytes]:
    """The bytes of the ZIP: every finished picture, and ``manifest.csv`` and ``manifest.jsonl`` of all images.

    Raises StoreError, ObjectMissingError or ObjectCorruptError when a picture cannot be had.
    """
    archive = ZipStream(compress_type=ZIP_STORED, sized=False)
    with tempfile.TemporaryFile() as table, tempfile.TemporaryFile() as lines:
        manifest = _Manifest(table, lines)
        for view, data in _read_ahead(store, images):
            name = None
            if data is not None:
                name = f"job-{view.image.job_id}/{view.download_name}" if folders else view.download_name
                archive.add(data, arcname=name)
                yield from archive.all_files()
            manifest.write(view, name)
        for name, file in (("manifest.csv", table), ("manifest.jsonl", lines)):
            archive.add(_chunks(file), arcname=name)
            yield from archive.all_files()
        yield from archive.finalize()


class _Place:
    """The right to send an archive, given back once."""

    def __init__(self) -> None:
        self._held = True

    @classmethod
    def taken(cls) -> "_Place":
        """Raises ServiceUnavailable if there is none left."""
        if not _places.acquire(blocking=False):
            raise ServiceUnavailable(
                f"{MAX_AT_ONCE} archives are being sent. Try again when one has ended.", retry_after=RETRY_SECONDS
            )
        return cls()

    def until_end(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks."""
        try:
            yield from chunks
        finally:
            self.free()

    def free(self) -> None:
        """Give it back; again is fine."""
        if self._held:
            self._held = False
            _places.release()


class _Manifest:
    """What each image was made from, as a table and as lines of JSON."""

    def __init__(self, table: IO[bytes], lines: IO[bytes]) -> None:
        self._table, self._lines = table, lines
        # Spreadsheets take a file for UTF-8 only with this mark.
        self._table.write("\N{ZERO WIDTH NO-BREAK SPACE}".encode())
        self._write_row(_COLUMNS)

    def write(self, view: ImageView, name: str | None) -> None:
        """Add an image."""
        image = view.image
        values: dict[str, Any] = {
            "name": name,
            "job_id": image.job_id,
            "index": image.index,
            "state": image.state.value,
            "error": image.error,
            "rating": image.rating,
            "tags": image.tags,
            "sha256": image.sha256,
            "removed_at": image.removed_at and image.removed_at.isoformat(),
            **view.parameters,
        }
        self._lines.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")
        self._write_row([cell(values.get(column)) for column in _COLUMNS])

    def _write_row(self, cells: Iterable[str]) -> None:
        row = io.StringIO()
        csv.writer(row).writerow(cells)
        self._table.write(row.getvalue().encode())


def cell(value: Any) -> str:
    """A value as a cell of a table, that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _read_ahead(store: ObjectStore, images: Iterator[ImageView]) -> Iterator[tuple[ImageView, bytes | None]]:
    """Each image with its picture if it has one; some are fetched while the one before is sent."""
    with ThreadPoolExecutor(READ_AHEAD, "archive") as pool:
        waiting: deque[tuple[ImageView, Future[bytes] | None]] = deque()
        try:
            for view in images:
                key, digest = view.image.image_key, view.image.sha256
                fetched = pool.submit(get_verified, store, key, digest) if key and digest else None
                waiting.append((view, fetched))
                if len(waiting) > READ_AHEAD:
                    yield _fetched(waiting.popleft())
            while waiting:
                yield _fetched(waiting.popleft())
        finally:
            for _, left in waiting:
                if left is not None:
                    left.cancel()


def _fetched(entry: tuple[ImageView, "Future[bytes] | None"]) -> tuple[ImageView, bytes | None]:
    view, fetched = entry
    return view, None if fetched is None else fetched.result()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk
