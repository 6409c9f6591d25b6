"""Grids show every picture once, where its index or its values say."""

import pytest
from PIL import Image

from producer.grids import GridError, Sheet, by_values, chosen, in_order

COLOURS = [(40 * n, 255 - 40 * n, 7) for n in range(6)]
IMAGES = [
    {"index": n, "seed": 42, "prompt": "a fox", "guidance_scale": 2.5 * (n % 3), "num_inference_steps": 10 * (n // 3)}
    for n in range(6)
]


def sheet_of(layout, images, **options) -> Sheet:
    sheet = Sheet(layout, 32, **options)
    for image in images:
        sheet.paste(image["index"], Image.new("RGB", (64, 32), COLOURS[image["index"]]))
    return sheet


def test_in_reading_order_every_picture_is_in_its_cell() -> None:
    sheet = sheet_of(in_order(IMAGES[:5]), IMAGES[:5], labels=False).picture
    # Five pictures: three columns, two rows.
    assert sheet.size == (3 * 40 + 8, 2 * 40 + 8)
    centres = [(8 + 40 * (n % 3) + 16, 8 + 40 * (n // 3) + 16) for n in range(5)]
    assert [sheet.getpixel(centre) for centre in centres] == COLOURS[:5]
    assert in_order(IMAGES, columns=2).places[5] == (2, 1)


def test_values_of_two_parameters_are_columns_and_rows_with_their_labels() -> None:
    layout = by_values(IMAGES[::-1], ["guidance_scale", "num_inference_steps"])
    assert layout.column_labels == ("guidance_scale 5.0", "guidance_scale 2.5", "guidance_scale 0.0")
    assert layout.row_labels == ("num_inference_steps 10", "num_inference_steps 0")
    assert layout.places == {5: (0, 0), 4: (0, 1), 3: (0, 2), 2: (1, 0), 1: (1, 1), 0: (1, 2)}
    labelled, bare = (sheet_of(layout, IMAGES, labels=labels).picture for labels in (True, False))
    assert labelled.width > bare.width
    assert labelled.height > bare.height
    # Above the first column something is written.
    assert len(labelled.crop((28, 0, 60, 26)).getcolors()) > 1
    assert by_values(IMAGES[:3], ["guidance_scale"]).places == {0: (0, 0), 1: (0, 1), 2: (0, 2)}


def test_captions_are_cut_to_their_cell() -> None:
    images = [{"index": 0, "seed": 1, "prompt": "many words " * 50}, {"index": 1, "seed": 2, "prompt": "two\nlines"}]
    sheet = Sheet(in_order(images, columns=2), 128)
    gap = sheet.picture.crop((8 + 128 + 1, 0, 8 + 128 + 7, sheet.picture.height))
    assert gap.getcolors() == [(gap.width * gap.height, (246, 245, 241))]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["guidence_scale"], "did you mean guidance_scale"),
        (["seed"], "Images 0 and 1 have the same seed; choose some"),
        (["seed", "prompt", "width"], "Name one parameter for the columns"),
    ],
)
def test_what_cannot_be_laid_out_is_said(names: list[str], message: str) -> None:
    with pytest.raises(GridError, match=message):
        by_values(IMAGES, names)


def test_images_are_chosen_by_number() -> None:
    assert [image["index"] for image in chosen(IMAGES, "0, 2-4")] == [0, 2, 3, 4]
    assert len(chosen(IMAGES, None)) == 6
    for wanted in ("9", "a", "1-"):
        with pytest.raises(GridError):
            chosen(IMAGES, wanted)
    with pytest.raises(GridError, match="no finished picture"):
        in_order([])
