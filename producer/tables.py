"""Lines and cells of files: text as UTF-8, comma- and tab-separated values, spreadsheets."""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from farm.errors import InvalidSubmissionError, Problem

TABLES = ("csv", "tsv", "xlsx")
#: A spreadsheet is a ZIP archive: a small file can hold very much.
MAX_UNPACKED_BYTES = 512 * 2**20
MAX_COLUMNS = 500
MAX_FIELD_CHARACTERS = 2**31 - 1

Cells = tuple[int, list[str]]
"""The number of a line, counted from 1, and its cells."""


def read_cells(data: bytes, ending: str) -> Iterator[Cells]:
    """The lines of a table, the header first. Raises InvalidSubmissionError."""
    return _spreadsheet(data) if ending == "xlsx" else _separated(decode(data), ending)


def decode(data: bytes) -> str:
    """The text of a file; raises InvalidSubmissionError with the line of what is not UTF-8, and of NUL characters."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refusal(
            "prompt", f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8; save the file as UTF-8", line
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise refusal("prompt", "holds a NUL character; remove it", line)
    return text


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers. Only line feeds (and CR LF) end a line: a prompt may hold other separators."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def refusal(name: str, message: str, line: int | None = None) -> InvalidSubmissionError:
    """The error of a file that cannot be read."""
    return InvalidSubmissionError([Problem(name, message, line)])


def _separated(text: str, ending: str) -> Iterator[Cells]:
    # In tab-separated values a double quote is an ordinary character (IANA text/tab-separated-values), and files
    # of prompts do hold stray ones; in comma-separated values it quotes (RFC 4180).
    if ending == "tsv":
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    # A setting of the whole process, which the default makes too small for prompts: the text is in memory anyway.
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise refusal("file", f"is no well-formed {ending}: {error}", reader.line_num) from None


def _spreadsheet(data: bytes) -> Iterator[Cells]:
    """The first sheet of a workbook; formulas as the values that were saved with them."""
    for number, row in enumerate(_values(data), start=1):
        cells = [_text(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        yield number, cells


def _values(data: bytes) -> Iterator[Iterable[Any]]:
    """Its rows. Whatever a damaged file makes the libraries raise is a refusal."""
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise refusal("file", f"unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB; save it as csv")
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        try:
            yield from book.worksheets[0].iter_rows(max_col=MAX_COLUMNS, values_only=True)
        finally:
            book.close()
    except InvalidSubmissionError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, InvalidFileException, OSError, EOFError, SyntaxError, NotImplementedError),
        *(KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError, OverflowError),
    ) as error:
        raise refusal("file", f"is no spreadsheet that can be read ({error}); save it as xlsx or csv") from None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        # Spreadsheets know no whole numbers.
        return str(int(value))
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return str(value).replace("\0", "")
