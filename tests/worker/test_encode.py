import io
import json
import struct

import numpy as np
import png
import pytest
import torch
from conformance.cases import LANDSCAPE, parameters
from conformance.cases import png as png_bytes
from PIL import Image
from safetensors.torch import load

from farm.formats import NoParametersError, read_parameters
from farm.web_ui import web_ui_text
from worker.encode import encode, encode_thumbnail
from worker.pictures import Picture, preview

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
    png = encode(PICTURE, image, PROVENANCE)
    read = Image.open(io.BytesIO(png))
    assert np.array_equal(np.asarray(read), np.asarray(PICTURE))
    assert json.loads(read.text["farm"]) == {"parameters": image.model_dump(mode="json"), "provenance": PROVENANCE}
    assert type(image).model_validate(json.loads(read.text["farm"])["parameters"]) == image
    assert read.text["parameters"] == web_ui_text(image)


def test_text_is_latin_where_it_can_be_and_international_where_it_must() -> None:
    assert "iTXt" not in chunk_kinds(encode(PICTURE, parameters("ein Fuchs, größer", 1), {}))
    assert "tEXt" not in chunk_kinds(encode(PICTURE, parameters("狐", 1), {}))


def test_the_same_picture_gives_the_same_bytes() -> None:
    image = parameters("a fox", 1)
    assert encode(PICTURE, image, PROVENANCE) == encode(PICTURE, image, PROVENANCE)


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


def test_the_web_uis_are_told_what_they_have_a_name_for() -> None:
    image = parameters(
        "a fox", 42, scheduler="dpmpp_2m_karras", clip_skip=1, loras="tiny-warm:0.8", image=LANDSCAPE, strength=0.7
    )
    assert web_ui_text(image).splitlines() == [
        "a fox <lora:tiny-warm:0.8>",
        "Steps: 8, Sampler: DPM++ 2M Karras, CFG scale: 5.0, Seed: 42, Size: 256x256, Model: tiny, "
        "Denoising strength: 0.7, Clip skip: 2, Refiner switch at: 0.8",
    ]


FLOATS = np.asarray(PICTURE, np.float32) / 255


@pytest.mark.parametrize(
    ("output_format", "picture"),
    [
        ("png", PICTURE),
        ("webp", PICTURE),
        ("jpeg", PICTURE),
        ("png16", FLOATS),
        ("latents", torch.linspace(-1, 1, 4 * 24 * 40).reshape(4, 24, 40)),
    ],
)
@pytest.mark.parametrize("prompt", ["a fox", 'quotes " and <tags> & Füchse 狐 🦊', "two\nlines"])
def test_every_format_tells_what_it_was_made_from(output_format: str, picture: Picture, prompt: str) -> None:
    image = parameters(prompt, 1, negative_prompt="'", output_format=output_format)
    data = encode(picture, image, PROVENANCE)
    document = read_parameters(data)
    assert type(image).model_validate(document["parameters"]) == image
    assert document["provenance"] == PROVENANCE
    if output_format == "latents":
        assert torch.equal(load(data)["latents"], picture)
        return
    read = Image.open(io.BytesIO(data))
    assert (read.format, read.size) == (output_format.upper().removesuffix("16"), PICTURE.size)
    if output_format in ("webp", "jpeg"):
        comment = read.getexif().get_ifd(0x8769)[0x9286]
        assert comment == b"UNICODE\0" + web_ui_text(image).encode("utf-16-be")
    else:
        assert read.text["parameters"] == web_ui_text(image)


def test_quality_decides_the_size() -> None:
    for output_format in ("webp", "jpeg"):
        sizes = [
            len(encode(PICTURE, parameters("a", 1, output_format=output_format, output_quality=quality), {}))
            for quality in (30, 90)
        ]
        assert sizes[0] < sizes[1] / 1.5


def test_sixteen_bits_are_sixteen_bits() -> None:
    ramp = np.linspace(0, 1, 64 * 1024, dtype=np.float32).reshape(64, 1024, 1).repeat(3, axis=2)
    data = encode(ramp, parameters("a", 1, output_format="png16"), {})
    width, height, rows, info = png.Reader(bytes=data).read()
    values = np.vstack([np.asarray(row) for row in rows]).reshape(height, width, 3)
    assert (width, height, info["bitdepth"]) == (1024, 64, 16)
    assert len(np.unique(values)) > 60_000
    assert np.abs(values / 65535 - ramp).max() < 1e-5


def test_flat_areas_take_no_room() -> None:
    flat = Image.new("RGB", (1024, 1024), (200, 30, 30))
    assert len(encode(flat, parameters("a", 1), {})) < 20_000


def test_a_prompt_too_long_for_a_jpeg_is_left_out_of_it() -> None:
    image = parameters("狐" * 10_000, 1, negative_prompt="雪" * 10_000, prompt_2="犬" * 10_000, output_format="jpeg")
    data = encode(PICTURE, image, {})
    assert Image.open(io.BytesIO(data)).size == PICTURE.size
    with pytest.raises(NoParametersError):
        read_parameters(data)


@pytest.mark.parametrize(
    "data", [b"", b"nothing", b"\xff" * 100, png_bytes(PICTURE)], ids=["empty", "text", "ff", "png"]
)
def test_other_files_tell_nothing(data: bytes) -> None:
    with pytest.raises(NoParametersError):
        read_parameters(data)


def test_latents_are_previewed() -> None:
    shown = preview(torch.zeros(4, 24, 40))
    assert shown.size == (40, 24)
    assert shown.getpixel((0, 0)) == (141, 125, 127)
    assert preview(FLOATS).tobytes() == PICTURE.tobytes()
