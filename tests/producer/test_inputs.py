"""Pictures that go in."""

import io

import pytest
from conformance.cases import landscape, png
from diffusers.utils import load_image
from PIL import Image
from sqlalchemy import Engine

from farm.errors import InvalidSubmissionError
from farm.keys import INPUTS, input_key
from farm.settings import Settings
from farm.storage import open_store, sha256
from producer.expand import InputSize
from producer.inputs import accept_input, find_input, find_inputs
from worker.inputs import decode


def test_a_picture_is_stored_once(engine: Engine, settings: Settings) -> None:
    store = open_store(settings)
    buffer = io.BytesIO()
    landscape().save(buffer, "BMP")
    data = buffer.getvalue()
    first, second = accept_input(engine, store, data), accept_input(engine, store, data)
    assert first == second
    assert (first.width, first.height, first.media_type) == (192, 128, "image/png")
    kept = store.get(input_key(first.ref.removeprefix("sha256:")))
    assert first.ref == f"sha256:{sha256(kept)}"
    assert first.size == len(kept)
    assert [one.key for one in store.list(INPUTS)] == [input_key(sha256(kept))]
    assert find_inputs(engine, [first.ref, "sha256:" + "0" * 64]) == {first.ref: InputSize(192, 128)}
    # By its name and by what was sent; what is stored may be sent, and is itself.
    assert find_input(engine, store, first.ref) == find_input(engine, store, f"sha256:{sha256(data)}") == first
    assert accept_input(engine, store, kept) == first


def test_nothing_of_what_was_sent_is_stored_but_its_pixels(engine: Engine, settings: Settings) -> None:
    store = open_store(settings)
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    buffer = io.BytesIO()
    landscape().save(buffer, "JPEG", exif=exif, comment=b"by somebody")
    sent = buffer.getvalue() + b"<script>alert(1)</script>"
    stored = accept_input(engine, store, sent)
    kept = store.get(input_key(stored.ref.removeprefix("sha256:")))
    for part in (b"taken at home", b"by somebody", b"<script>"):
        assert part in sent
        assert part not in kept
    assert Image.open(io.BytesIO(kept)).info == {}


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("LA", "PNG"), ("CMYK", "JPEG")],
)
def test_the_pixels_that_are_stored_are_those_that_diffusers_loads(
    engine: Engine, settings: Settings, mode: str, ending: str
) -> None:
    sent = io.BytesIO()
    picture = landscape()
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.convert(mode).save(sent, ending)
    store = open_store(settings)
    stored = accept_input(engine, store, sent.getvalue())
    kept = decode(store.get(input_key(stored.ref.removeprefix("sha256:"))))
    assert kept.tobytes() == load_image(Image.open(io.BytesIO(sent.getvalue()))).tobytes()


def test_of_many_frames_the_first_is_stored(engine: Engine, settings: Settings) -> None:
    store = open_store(settings)
    frames = [Image.new("RGB", (64, 32), (colour, 0, 0)) for colour in range(200)]
    sent = io.BytesIO()
    frames[0].save(sent, "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(sent).n_frames == 200
    stored = accept_input(engine, store, sent.getvalue())
    kept = Image.open(io.BytesIO(store.get(input_key(stored.ref.removeprefix("sha256:")))))
    assert (kept.size, getattr(kept, "n_frames", 1)) == ((64, 32), 1)
    assert kept.convert("RGB").tobytes() == frames[0].tobytes()


def test_a_picture_whose_object_is_gone_is_stored_again(engine: Engine, settings: Settings) -> None:
    store = open_store(settings)
    data = png(landscape())
    stored = accept_input(engine, store, data)
    key = input_key(stored.ref.removeprefix("sha256:"))
    kept = store.get(key)
    store.delete(key)
    assert find_input(engine, store, stored.ref) is None
    assert accept_input(engine, store, data) == stored
    assert store.get(key) == kept


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
    assert [*store.list(INPUTS)] == []
