"""Spreadsheets, and tables whose titles are not ours."""

import io
import zipfile

import pytest
from sheets import workbook

from farm.errors import InvalidSubmissionError
from producer.intake import read_file


def test_a_spreadsheet_is_read_as_a_table() -> None:
    data = workbook(
        [
            ["Prompt", "steps", "guidance_scale", "watermark", "Remark"],
            ["a fox", 20, 7.5, True, "mine"],
            [None, None],
            ["=1+1 owls", None, 5.0],
        ]
    )
    intake = read_file("sheet.XLSX", data)
    assert [(row.values, row.line) for row in intake.rows] == [
        ({"prompt": "a fox", "num_inference_steps": "20", "guidance_scale": "7.5", "watermark": "true"}, 2),
        # A formula has no value until a spreadsheet program computes it; the third line is empty.
        ({"prompt": "", "guidance_scale": "5"}, 4),
    ]
    assert intake.ignored_columns == ["Remark"]


def test_titles_can_be_told_what_they_are() -> None:
    data = b"Text,cfg,note,seed\na fox,7,x,3\n"
    columns = {"Text": "prompt", "cfg": "guidance_scale", "seed": ""}
    intake = read_file("a.csv", data, columns)
    assert intake.rows[0].values == {"prompt": "a fox", "guidance_scale": "7"}
    assert intake.ignored_columns == ["note", "seed"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Txt": "prompt"}, "columns: there is no column 'Txt', only 'Text', 'cfg'"),
        ({"Text": "promt"}, "columns: 'Text' cannot be 'promt', which is no parameter"),
        ({"Text": "prompt", "cfg": "prompt"}, "prompt: is the title of two columns; remove one"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(columns: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSubmissionError, match=message):
        read_file("a.csv", b"Text,cfg\na fox,7\n", columns)


@pytest.mark.parametrize("damage", ["text", "zip", "cut"])
def test_what_is_no_spreadsheet_is_refused(damage: str) -> None:
    data = workbook([["prompt"], ["a fox"]])
    if damage == "text":
        data = b"prompt\na fox\n"
    elif damage == "cut":
        data = data[: len(data) // 2]
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.txt", "x")
        data = buffer.getvalue()
    with pytest.raises(InvalidSubmissionError, match="file: is no spreadsheet that can be read"):
        read_file("a.xlsx", data)


def test_a_spreadsheet_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.tables.MAX_UNPACKED_BYTES", 1 << 20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (2 << 20))
    assert len(buffer.getvalue()) < 10_000
    with pytest.raises(InvalidSubmissionError, match="file: unpacks to more than 1 MiB"):
        read_file("a.xlsx", buffer.getvalue())
