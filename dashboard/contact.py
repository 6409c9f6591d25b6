"""Grids and contact sheets as one picture, pasted together from thumbnails or from the pictures themselves."""

import io
import math
from collections.abc import Iterable
from typing import Protocol

from flask import Response
from PIL import Image as Picture

from farm.errors import InvalidSubmissionError, Problem
from farm.formats import format_of_key
from farm.storage import ObjectStore
from producer.grids import Layout, Sheet

MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_KINDS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
#: 40 megapixels take 120 MB while they are put together.
MAX_PIXELS = 40_000_000
#: Above what a JPEG may measure; WebP ends at a quarter.
MAX_EDGE = {"png": 65_000, "jpg": 65_000, "webp": 16_000}
MAX_PICTURES = 1_000
#: What is tried, from the largest, when no edge is asked for: up to the size of thumbnails.
EDGES = (256, 192, 128, 96, 64, 32)
LEAST_EDGE, MOST_EDGE = EDGES[-1], 1024


class Pasted(Protocol):
    """What is pasted: an image with its objects' keys."""

    @property
    def index(self) -> int:
        """Its place in the layout."""

    @property
    def image_key(self) -> str | None:
        """The picture."""

    @property
    def thumbnail_key(self) -> str | None:
        """Its thumbnail."""


def sheet_response(
    store: ObjectStore, layout: Layout, images: Iterable[Pasted], edge: int | None, ending: str, filename: str
) -> Response:
    """The sheet as a download; ``edge`` is that of a cell, by default the largest that fits. Full pictures are fetched
    only where cells are larger than thumbnails.

    Raises InvalidSubmissionError if it would be too large.
    """
    count = len(layout.places)
    if count > MAX_PICTURES:
        raise _too_large(f"would hold {count:,} pictures, and at most {MAX_PICTURES:,} are taken; choose fewer")
    rows = 1 + max(row for row, _ in layout.places.values())
    columns = 1 + max(column for _, column in layout.places.values())
    sizes = {tried: _size(rows, columns, tried) for tried in (EDGES if edge is None else (edge,))}
    fitting = [
        tried for tried, size in sizes.items() if math.prod(size) <= MAX_PIXELS and max(size) <= MAX_EDGE[ending]
    ]
    if not fitting:
        width, height = sizes[min(sizes)]
        raise _too_large(f"would be about {width} x {height} pixels; take smaller cells, or fewer pictures")
    edge = fitting[0]
    sheet = Sheet(layout, edge)
    for image in images:
        if (key := _key(image, edge)) is not None and image.index in layout.places:
            sheet.paste(image.index, Picture.open(io.BytesIO(store.get(key))))
    buffer = io.BytesIO()
    sheet.picture.save(buffer, _KINDS[ending])
    response = Response(buffer.getvalue(), mimetype=MEDIA_TYPES[ending])
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def _size(rows: int, columns: int, edge: int) -> tuple[int, int]:
    """About how large it becomes: labels take a little more than the cells themselves."""
    return (columns + 1) * (edge + 8), (rows + 1) * (edge + 26)


def _key(image: Pasted, edge: int) -> str | None:
    full = edge > EDGES[0] and image.image_key is not None and format_of_key(image.image_key).shown
    return image.image_key if full else image.thumbnail_key


def _too_large(message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem("cell", message)])
