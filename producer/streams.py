"""Rows from a stream of JSON lines, one after the other: a million of them take no more memory than one."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from typing import IO

from typing_extensions import override

from farm.errors import InvalidSubmissionError, Problem
from producer.intake import Intake, Row, read_object
from producer.tables import refusal

#: The longest line: one of ours with every parameter and four prompts of full length is far shorter.
MAX_LINE_BYTES = 2**20
#: A compressed stream of a few bytes may unpack to any length.
MAX_STREAM_BYTES = 4 * 2**30


class DigestingReader(io.RawIOBase):
    """Passes a stream on, and knows the hash of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def digest(self) -> str:
        """Hexadecimal SHA-256 of all of the stream, whose rest is read for it."""
        while self.read(2**20):
            pass
        return self._hash.hexdigest()


def read_stream(stream: io.RawIOBase, *, compressed: bool = False) -> Intake:
    """The rows of JSON lines, read as they are asked for; blank lines count but say nothing.

    A line that cannot be read is a row with problems. InvalidSubmissionError is raised while reading for what ends
    all reading: a stream that is no gzip, a line or a stream that is too long.
    """
    buffered = io.BufferedReader(stream, 2**18)
    lines: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=buffered), 2**18) if compressed else buffered
    return Intake(_rows(lines))


def _rows(lines: IO[bytes]) -> Iterator[Row]:
    size = number = 0
    while line := _next_line(lines):
        number += 1
        size += len(line)
        if len(line) > MAX_LINE_BYTES:
            raise refusal("body", f"has more than {MAX_LINE_BYTES:,} bytes; write one object a line", number)
        if size > MAX_STREAM_BYTES:
            raise refusal("body", f"unpacks to more than {MAX_STREAM_BYTES >> 30} GiB; make several jobs", number)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield _row(line, number)


def _next_line(lines: IO[bytes]) -> bytes:
    try:
        return lines.readline(MAX_LINE_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise refusal("body", f"is no whole gzip stream ({error}); compress it anew, or send it as it is") from None


def _row(line: bytes, number: int) -> Row:
    try:
        return read_object(line.decode(), number)
    except UnicodeDecodeError as error:
        message = f"byte {error.start} (0x{line[error.start]:02x}) is not UTF-8; send UTF-8"
        return Row({}, number, (Problem("prompt", message, number),))
    except InvalidSubmissionError as error:
        return Row({}, number, tuple(error.problems))
