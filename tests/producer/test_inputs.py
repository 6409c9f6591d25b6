"""Pictures that go in."""

import io

import pytest
from conformance.cases import landscape, png
from PIL import Image
from sqlalchemy import Engine

from farm.errors import InvalidSubmissionError, ObjectMissingError
from farm.keys import input_key
from farm.settings import Settings
from farm.storage import open_store, sha256
from producer.expand import InputSize
from producer.inputs import accept_input, find_inputs


def test_a_picture_is_stored_once_as_it_came(engine: Engine, settings: Settings) -> None:
    store = open_store(settings)
    data = png(landscape())
    first, second = accept_input(engine, store, data), accept_input(engine, store, data)
    assert first == second
    assert (first.ref, first.width, first.height, first.media_type) == (f"sha256:{sha256(data)}", 192, 128, "image/png")
    assert store.get(input_key(sha256(data))) == data
    assert find_inputs(engine, [first.ref, "sha256:" + "0" * 64]) == {first.ref: InputSize(192, 128)}


def test_a_turned_photograph_has_its_upright_size(engine: Engine, settings: Settings) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    landscape().save(buffer, "JPEG", exif=exif)
    stored = accept_input(engine, open_store(settings), buffer.getvalue())
    assert (stored.width, stored.height) == (128, 192)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no picture", "is no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture"),
        (png(landscape())[:-100], "is damaged"),
        (png(Image.new("1", (20_000, 20_000))), "pixels; at most 64,000,000"),
    ],
    ids=["text", "program", "cut short", "huge"],
)
def test_what_is_no_picture_is_refused_and_not_stored(
    engine: Engine, settings: Settings, data: bytes, reason: str
) -> None:
    store = open_store(settings)
    with pytest.raises(InvalidSubmissionError, match=reason):
        accept_input(engine, store, data)
    assert find_inputs(engine, [f"sha256:{sha256(data)}"]) == {}
    with pytest.raises(ObjectMissingError):
        store.get(input_key(sha256(data)))
