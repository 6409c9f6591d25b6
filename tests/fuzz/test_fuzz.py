"""Whatever bytes come: what reads them gives what it promises, or the one error that it promises, and nothing else.

``FUZZ_EXAMPLES`` has more tried than a suite has time for.
"""

import base64
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from PIL import Image, PngImagePlugin

from farm.broker import _rung_for
from farm.catalog import Catalog
from farm.errors import ConfigurationError, InvalidSubmissionError, ObjectCorruptError
from farm.formats import NoParametersError, read_parameters
from producer.inputs import open_picture, plain_png
from producer.intake import read_file
from producer.streams import read_stream
from worker import latents

#: What Pillow and openpyxl find strange they read as well as they can, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])

#: Places in a file, and what is done there: bytes that are replaced, put between or left out.
_EDITS = st.lists(
    st.tuples(st.integers(0, 2**16), st.sampled_from(["replace", "insert", "cut"]), st.binary(max_size=8)), max_size=6
)


def damaged(*wholes: bytes) -> st.SearchStrategy[bytes]:
    """Anything at all, and files that were whole before something happened to them."""

    def damage(whole: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
        for place, what, data in edits:
            at = place % (len(whole) + 1)
            if what == "replace":
                whole = whole[:at] + data + whole[at + len(data) :]
            elif what == "insert":
                whole = whole[:at] + data + whole[at:]
            else:
                whole = whole[:at] + whole[at + len(data) :]
        return whole

    return st.one_of(st.binary(max_size=200), st.builds(damage, st.sampled_from(wholes), _EDITS))


def spreadsheet() -> bytes:
    book = Workbook()
    for row in (["prompt", "seed", "size"], ["a fox", 7, "64x64"], ["a hen", 8, None]):
        book.active.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def picture(kind: str) -> bytes:
    data, told = io.BytesIO(), PngImagePlugin.PngInfo()
    told.add_text("parameters", '{"prompt": "a fox"}')
    more = {"pnginfo": told} if kind == "PNG" else {"exif": Image.Exif().tobytes()}
    Image.new("RGB", (16, 8), (200, 30, 60)).save(data, kind, **more)
    return data.getvalue()


TABLE = b'prompt,seed,steps\n"a fox, red",7,20\n"a ""hen""",8,\n'
LINES = b'{"prompt": "a fox", "seed": 7}\n\n{"prompt": "a hen", "size": "64x64"}\n'
FILES = {
    "rows.txt": (b"a fox\na hen\n", "a fox\n\u00e4 hen".encode("utf-16")),
    "rows.csv": (TABLE, TABLE.replace(b",", b";")),
    "rows.tsv": (TABLE.replace(b",", b"\t"),),
    "rows.jsonl": (LINES, b"\xef\xbb\xbf" + LINES),
    "rows.xlsx": (spreadsheet(),),
}
PICTURES = tuple(picture(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))


@pytest.mark.parametrize("name", FILES)
def test_files_of_rows(name: str) -> None:
    @fuzz
    @given(damaged(*FILES[name]))
    def read(data: bytes) -> None:
        try:
            rows = [*read_file(name, data).rows]
        except InvalidSubmissionError:
            return
        assert all(row.values or row.problems for row in rows)

    read()


@pytest.mark.parametrize("compressed", [False, True])
def test_streams_of_rows(compressed: bool) -> None:
    pack: Callable[[bytes], bytes] = gzip.compress if compressed else bytes

    @fuzz
    @given(damaged(pack(LINES), pack(LINES * 100)))
    def read(data: bytes) -> None:
        try:
            rows = [*read_stream(io.BytesIO(data), compressed=compressed).rows]  # type: ignore[arg-type]
        except InvalidSubmissionError:
            return
        assert all(row.values or row.problems for row in rows)

    read()


@fuzz
@given(damaged(latents.pack(torch.zeros(2, 4, 2, 3), [0, 1]), latents.pack(torch.ones(1, 4, 1, 1).half(), [7])))
@example(b"")
def test_latents(data: bytes) -> None:
    try:
        read = latents.unpack(data)
    except ObjectCorruptError:
        return
    assert read.ndim == 4
    assert read.shape[1] == 4


@fuzz
@given(damaged(*PICTURES))
def test_pictures_that_go_in(data: bytes) -> None:
    try:
        opened = open_picture(data)
        kept = plain_png(opened)
    except InvalidSubmissionError:
        return
    assert opened.width * opened.height <= 64_000_000
    assert open_picture(kept).size == opened.size


@fuzz
@given(damaged(*PICTURES, latents.pack(torch.zeros(1, 4, 1, 1), [0])))
def test_what_a_picture_was_made_from(data: bytes) -> None:
    try:
        read_parameters(data)
    except NoParametersError:
        return


@fuzz
@given(
    st.one_of(
        damaged(json.dumps({"body": base64.b64encode(b"[[5, 2], {}, {}]").decode()}).encode()),
        st.recursive(
            st.none() | st.integers() | st.text(), lambda some: st.lists(some) | st.dictionaries(st.text(), some)
        ).map(lambda body: json.dumps({"body": base64.b64encode(json.dumps(body).encode()).decode()}).encode()),
    )
)
def test_messages(message: bytes) -> None:
    for batch_id, attempt in _rung_for(message):
        assert isinstance(batch_id, int)
        assert isinstance(attempt, int)


CATALOG = b"""
[pipelines.mine]
base = "./mine"
steps = 30
batch_size = 4

[loras.style]
file = "style.safetensors"
pipelines = ["mine"]
"""


def test_catalogs(tmp_path: Path) -> None:
    path = tmp_path / "farm.toml"

    @fuzz
    @given(damaged(CATALOG))
    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            Catalog.load(path, tmp_path)
        except ConfigurationError:
            return

    read()
