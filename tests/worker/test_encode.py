import io
import json
import struct

import numpy as np
import pytest
from conformance.cases import parameters
from PIL import Image

from worker.encode import encode_png, encode_thumbnail, web_ui_text

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (192, 320, 3), dtype=np.uint8))
PROVENANCE = {"job": "7", "index": "0"}


def chunk_kinds(png: bytes) -> list[str]:
    kinds, position = [], 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        kinds.append(png[position + 4 : position + 8].decode())
        position += length + 12
    return kinds


@pytest.mark.parametrize("prompt", ["a fox", "ein Füchslein, größer", "狐, 雪", "two\nlines: a, b", "🦊"])
def test_a_png_carries_pixels_and_parameters(prompt: str) -> None:
    image = parameters(prompt, 2**63 - 1, negative_prompt="grey")
    png = encode_png(PICTURE, image, PROVENANCE)
    read = Image.open(io.BytesIO(png))
    assert np.array_equal(np.asarray(read), np.asarray(PICTURE))
    assert json.loads(read.text["farm"]) == {"parameters": image.model_dump(mode="json"), "provenance": PROVENANCE}
    assert type(image).model_validate(json.loads(read.text["farm"])["parameters"]) == image
    assert read.text["parameters"] == web_ui_text(image)


def test_text_is_latin_where_it_can_be_and_international_where_it_must() -> None:
    assert "iTXt" not in chunk_kinds(encode_png(PICTURE, parameters("ein Fuchs, größer", 1), {}))
    assert "tEXt" not in chunk_kinds(encode_png(PICTURE, parameters("狐", 1), {}))


def test_the_same_picture_gives_the_same_bytes() -> None:
    image = parameters("a fox", 1)
    assert encode_png(PICTURE, image, PROVENANCE) == encode_png(PICTURE, image, PROVENANCE)


def test_the_web_uis_form() -> None:
    image = parameters("a fox", 42, negative_prompt="blurry", width=320, height=192)
    assert web_ui_text(image) == (
        "a fox\n"
        "Negative prompt: blurry\n"
        "Steps: 8, Sampler: Euler, CFG scale: 5.0, Seed: 42, Size: 320x192, Model: tiny, Refiner switch at: 0.8"
    )
    assert web_ui_text(parameters("a fox", 42, refiner_split=None)).splitlines() == [
        "a fox",
        "Steps: 8, Sampler: Euler, CFG scale: 5.0, Seed: 42, Size: 256x256, Model: tiny",
    ]


@pytest.mark.parametrize(
    ("size", "expected"), [((1024, 512), (320, 160)), ((512, 1024), (160, 320)), ((64, 64), (64, 64))]
)
def test_thumbnails_keep_the_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = PICTURE.resize(size)
    thumbnail = Image.open(io.BytesIO(encode_thumbnail(picture)))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", expected)
    assert picture.size == size
    assert max(Image.open(io.BytesIO(encode_thumbnail(picture, edge=32))).size) == 32
