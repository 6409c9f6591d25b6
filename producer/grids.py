"""Grids of a job's pictures: in reading order with captions, or by the values of two parameters."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from farm.errors import FarmError
from farm.spec import ImageParameters
from producer.intake import suggestion

Json = dict[str, Any]

MARGIN = 8
BACKGROUND = (246, 245, 241)
INK = (40, 40, 40)
FONT_SIZE = 13
LINE = 18
#: A label of a row takes so much of a cell's edge.
LABEL_SHARE = 0.6


class GridError(FarmError):
    """Pictures that cannot be laid out as it was asked."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each image goes: its index to (row, column), counted from 0, and what is written beside."""

    places: dict[int, tuple[int, int]]
    captions: dict[int, str] = field(default_factory=dict)
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()


def in_order(images: Sequence[Json], columns: int | None = None) -> Layout:
    """In reading order, in so many columns, by default about as many as rows; each with its number, seed and prompt."""
    if not images:
        raise GridError("There is no finished picture to lay out.")
    width = columns or math.ceil(math.sqrt(len(images)))
    return Layout(
        places={image["index"]: divmod(place, width) for place, image in enumerate(images)},
        captions={image["index"]: f"{image['index']}: seed {image['seed']}, {image['prompt']}" for image in images},
    )


def by_values(images: Sequence[Json], names: Sequence[str]) -> Layout:
    """Columns by the values of the first parameter, rows by those of the second, if there is one.

    Raises GridError for an unknown parameter, and where two pictures would fall into one cell.
    """
    known = tuple(ImageParameters.model_fields)
    for name in names:
        if name not in known:
            meant = suggestion(name, known)
            raise GridError(f"There is no parameter {name!r}" + (f"; did you mean {meant}?" if meant else "."))
    if not 1 <= len(names) <= 2:
        raise GridError("Name one parameter for the columns, and one for the rows if you like: guidance_scale,steps.")
    values = [[_text(image[name]) for name in names] for image in images]
    axes = [list(dict.fromkeys(texts)) for texts in zip(*values, strict=True)]
    places: dict[int, tuple[int, int]] = {}
    taken: dict[tuple[int, int], int] = {}
    for image, texts in zip(images, values, strict=True):
        column = axes[0].index(texts[0])
        place = (axes[1].index(texts[1]) if len(names) == 2 else 0, column)
        if place in taken:
            raise GridError(
                f"Images {taken[place]} and {image['index']} have the same {' and '.join(names)}; choose some with "
                f"--images, or other parameters."
            )
        taken[place] = image["index"]
        places[image["index"]] = place
    return Layout(
        places=places,
        row_labels=tuple(f"{names[1]} {text}" for text in axes[1]) if len(names) == 2 else (),
        column_labels=tuple(f"{names[0]} {text}" for text in axes[0]),
    )


class Sheet:
    """A grid in the making: pictures are pasted one by one, so that only one is in memory."""

    def __init__(self, layout: Layout, edge: int, *, labels: bool = True) -> None:
        self._layout = layout
        self._edge = edge
        self._font = ImageFont.load_default(FONT_SIZE)
        self._labels = labels
        rows = 1 + max(row for row, _ in layout.places.values())
        columns = 1 + max(column for _, column in layout.places.values())
        self._left = MARGIN + (round(edge * LABEL_SHARE) if labels and layout.row_labels else 0)
        self._top = MARGIN + (LINE + MARGIN if labels and layout.column_labels else 0)
        self._pitch = (edge + MARGIN, edge + MARGIN + (LINE if labels and layout.captions else 0))
        size = (self._left + columns * self._pitch[0], self._top + rows * self._pitch[1])
        self.picture = Image.new("RGB", size, BACKGROUND)
        self._draw = ImageDraw.Draw(self.picture)
        if labels:
            for column, text in enumerate(layout.column_labels):
                self._write(text, self._left + column * self._pitch[0], MARGIN, edge)
            for row, text in enumerate(layout.row_labels):
                middle = self._top + row * self._pitch[1] + edge // 2 - LINE // 2
                self._write(text, MARGIN, middle, self._left - 2 * MARGIN)

    def paste(self, index: int, picture: Image.Image) -> None:
        """Put an image's picture into its cell, scaled to fit."""
        row, column = self._layout.places[index]
        left, top = self._left + column * self._pitch[0], self._top + row * self._pitch[1]
        cell = picture.convert("RGB")
        cell.thumbnail((self._edge, self._edge))
        self.picture.paste(cell, (left + (self._edge - cell.width) // 2, top + (self._edge - cell.height) // 2))
        if self._labels and (caption := self._layout.captions.get(index)):
            self._write(caption, left, top + self._edge + 2, self._edge)

    def _write(self, text: str, left: int, top: int, width: int) -> None:
        """One line, cut to the width."""
        line = " ".join(text.split())
        if self._draw.textlength(line, self._font) > width:
            while line and self._draw.textlength(line + "...", self._font) > width:
                line = line[:-1]
            line += "..."
        self._draw.text((left, top), line, INK, self._font)


def chosen(images: Sequence[Json], wanted: str | None) -> list[Json]:
    """Those of the images that ``0,5,7-9`` names; all without. Raises GridError."""
    if wanted is None:
        return list(images)
    indices: set[int] = set()
    for part in wanted.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise GridError(f"{part!r} is no image; write numbers and ranges such as 0,5,7-9.")
        indices.update(range(int(first), int(last or first) + 1))
    found = [image for image in images if image["index"] in indices]
    missing = indices - {image["index"] for image in found}
    if missing:
        raise GridError(f"Image {min(missing)} is not there, or not finished.")
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
