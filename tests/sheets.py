"""Workbooks as spreadsheet programs save them."""

import io
from typing import Any

from openpyxl import Workbook


def workbook(rows: list[list[Any]]) -> bytes:
    """A workbook whose first sheet has these rows."""
    book = Workbook()
    for row in rows:
        book.active.append(row)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()
