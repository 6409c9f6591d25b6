"""Rows from streams: read one by one, refused by line, with what they cost bounded."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, select

from farm.catalog import Catalog
from farm.errors import InvalidSubmissionError
from farm.models import Batch, Image, Job
from producer.intake import Intake, Row
from producer.quotas import Quotas
from producer.streams import MAX_LINE_BYTES, DigestingReader, read_stream
from producer.submit import submit_job


def intake_of(data: bytes, *, compressed: bool = False) -> Intake:
    return read_stream(DigestingReader(io.BytesIO(data)), compressed=compressed)


def refusal_of(engine: Engine, intake: Intake, **fields: object) -> InvalidSubmissionError:
    with pytest.raises(InvalidSubmissionError) as caught:
        submit_job(engine, Catalog.load(), "tiny", fields, intake)
    with engine.connect() as connection:
        assert [connection.scalar(select(func.count()).select_from(table)) for table in (Job, Batch, Image)] == [
            0,
            0,
            0,
        ]
    return caught.value


@pytest.mark.parametrize("compressed", [False, True])
def test_lines_become_rows_with_their_numbers(*, compressed: bool) -> None:
    data = b'\xef\xbb\xbf{"prompt": "a fox", "seed": 3}\r\n\n"an owl"\n{"prompt": "\xc3\xa9", "size": "64x128"}'
    rows = [*intake_of(gzip.compress(data) if compressed else data, compressed=compressed).rows]
    assert rows == [
        Row({"prompt": "a fox", "seed": 3}, 1),
        Row({"prompt": "an owl"}, 3),
        Row({"prompt": "é", "width": 64, "height": 128}, 4),
    ]


def test_bad_lines_of_all_kinds_are_named_together(engine: Engine) -> None:
    lines = [
        b'{"prompt": "well"}',
        b"{broken",
        b'{"prompt": "\xff"}',
        b'{"prompt": "a", "stepz": 3}',
        b'{"prompt": " "}',
        b'{"prompt": "a", "steps": 0}',
        b"[1]",
        b'{"prompt": "well, too"}',
    ]
    error = refusal_of(engine, intake_of(b"\n".join(lines)))
    assert [(problem.line, problem.field) for problem in error.problems] == [
        (2, "file"),
        (3, "prompt"),
        (4, "stepz"),
        (5, "prompt"),
        (6, "num_inference_steps"),
        (7, "file"),
    ]


def test_the_first_hundred_bad_lines_are_named_and_the_others_counted(engine: Engine) -> None:
    error = refusal_of(engine, intake_of(b'{"prompt": "well"}\n' + b"{}\n" * 250))
    assert [problem.line for problem in error.problems] == list(range(2, 102))
    assert error.total == 250


def test_what_all_lines_have_in_common_is_refused_once(engine: Engine) -> None:
    error = refusal_of(engine, intake_of(b'"a fox"\n' * 3000), num_inference_steps=0)
    assert [(problem.line, problem.field) for problem in error.problems] == [(None, "num_inference_steps")]


@pytest.mark.parametrize(
    ("data", "compressed", "message"),
    [
        (b"", False, "there is none"),
        (b"\n \n", False, "there is none"),
        (b"not gzip", True, "is no whole gzip stream"),
        (gzip.compress(b'"a fox"\n' * 1000)[:-20], True, "is no whole gzip stream"),
        (b'"' + b"a" * MAX_LINE_BYTES + b'"\n', False, "has more than 1,048,576 bytes"),
        (gzip.compress(b" " * 2 * MAX_LINE_BYTES), True, "has more than 1,048,576 bytes"),
    ],
    ids=["empty", "blank", "no gzip", "cut", "long line", "bomb"],
)
def test_streams_that_cannot_be_read(engine: Engine, data: bytes, *, compressed: bool, message: str) -> None:
    assert message in refusal_of(engine, intake_of(data, compressed=compressed)).summary()


def test_too_many_rows_are_refused_before_all_are_read(engine: Engine) -> None:
    read = 0

    def endless() -> Iterator[Row]:
        nonlocal read
        while True:
            read += 1
            yield Row({"prompt": "a fox"}, read)

    with pytest.raises(InvalidSubmissionError, match="more than 30,000 images"):
        submit_job(engine, Catalog.load(), "tiny", {}, Intake(endless()), quotas=Quotas(1, largest_job=30_000))
    assert read < 40_000


def test_the_digest_is_of_all_that_was_sent_also_if_reading_stopped() -> None:
    whole = b'"a fox"\n' * 100_000
    read, unread = DigestingReader(io.BytesIO(whole)), DigestingReader(io.BytesIO(whole))
    assert len([*read_stream(read).rows]) == 100_000
    assert next(iter(read_stream(unread).rows)).line == 1
    other = DigestingReader(io.BytesIO(whole + b" "))
    assert read.digest() == unread.digest() != other.digest()


def test_rows_of_ever_new_shapes_and_hostile_prompts_are_written_as_they_are(engine: Engine) -> None:
    prompts = [
        "tab\there",
        "line\nfeed",
        "back\\slash \\N \\.",
        "carriage\rreturn",
        "'; DROP TABLE images; --",
        "🦊 \x7f",
    ]
    rows = [{"prompt": prompt, "negative_prompt": prompt, "prompt_2": prompt} for prompt in prompts]
    rows += [{"prompt": "many", "guidance_scale": 1 + number / 1000} for number in range(2000)]
    data = "\n".join(map(json.dumps, rows)).encode()
    receipt = submit_job(engine, Catalog.load(), "tiny", {"refiner_split": None}, intake_of(data))
    assert receipt.image_count == 2006
    assert receipt.batch_count == 2001
    with engine.connect() as connection:
        written = connection.execute(
            select(Image.prompt, Image.negative_prompt, Image.parameters).where(Image.index < 6).order_by(Image.index)
        ).all()
    assert [tuple(row) for row in written] == [(prompt, prompt, {"prompt_2": prompt}) for prompt in prompts]


def test_a_long_stream_takes_no_more_memory_than_a_short_one(engine: Engine) -> None:
    def peak(count: int) -> int:
        lines = DigestingReader(_Lines(count))  # type: ignore[arg-type]
        tracemalloc.start()
        try:
            submit_job(engine, Catalog.load(), "tiny", {}, read_stream(lines))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(40_000) < peak(4_000) + 2 * 2**20


class _Lines:
    """A stream of so many lines, made as they are read."""

    def __init__(self, count: int) -> None:
        self._left = count

    def read(self, size: int) -> bytes:
        count = min(self._left, size // 64)
        self._left -= count
        return b"".join(b'{"prompt": "a fox, number %08d"}\n' % number for number in range(count))
