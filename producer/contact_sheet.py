"""A contact sheet: many pictures in one grid."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

MARGIN = 8
BACKGROUND = (246, 245, 241)


def contact_sheet(pictures: Sequence[Path], edge: int = 256) -> Image.Image:
    """All pictures in reading order, each scaled to fit a square cell of ``edge`` pixels."""
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    pitch = edge + MARGIN
    sheet = Image.new("RGB", (columns * pitch + MARGIN, rows * pitch + MARGIN), BACKGROUND)
    for number, path in enumerate(pictures):
        with Image.open(path) as picture:
            cell = picture.convert("RGB")
        cell.thumbnail((edge, edge))
        row, column = divmod(number, columns)
        left = MARGIN + column * pitch + (edge - cell.width) // 2
        top = MARGIN + row * pitch + (edge - cell.height) // 2
        sheet.paste(cell, (left, top))
    return sheet
