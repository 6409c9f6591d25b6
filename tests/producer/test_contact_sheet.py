"""Contact sheets show every picture once, in order."""

from pathlib import Path

import pytest
from PIL import Image

from producer.contact_sheet import contact_sheet


def test_every_picture_is_in_its_cell(tmp_path: Path) -> None:
    colours = [(40 * n, 255 - 40 * n, 7) for n in range(5)]
    paths = []
    for number, colour in enumerate(colours):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (64, 32), colour).save(paths[-1])
    sheet = contact_sheet(paths, edge=32)
    # Five pictures: three columns, two rows.
    assert sheet.size == (3 * 40 + 8, 2 * 40 + 8)
    centres = [(8 + 40 * (n % 3) + 16, 8 + 40 * (n // 3) + 16) for n in range(5)]
    assert [sheet.getpixel(centre) for centre in centres] == colours


def test_nothing_makes_no_sheet() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
