"""What a submission would become: every problem in its place, and nothing written."""

import json
import time
from typing import Any

import pytest
from sheets import workbook

from farm.batch_sizes import BatchSizes
from farm.catalog import Catalog, Pipeline
from producer.expand import InputSize
from producer.preview import Preview, as_text, guess_format, guess_parameter, preview_job

REF = "sha256:" + "0" * 64


def preview(filename: str, data: bytes, columns: dict[str, str] | None = None, **fields: Any) -> Preview:
    found = {"animal": ["fox", "owl"]}
    return preview_job(
        Catalog.load(), "tiny", fields, filename, data, columns or {}, lambda refs: {}, lambda: found, sizes
    )


def sizes(pipeline: Pipeline, of_job: int | None) -> BatchSizes:
    return BatchSizes(of_job or pipeline.batch_size)


def located(shown: Preview) -> dict[tuple[int, str], str]:
    """Problems by line and title of the column."""
    assert shown.sheet is not None
    return {
        (row.line, shown.sheet.columns[place].title): messages[0]
        for row in shown.sheet.rows
        for place, messages in row.cell_problems.items()
    }


def test_problems_lie_in_their_cells() -> None:
    data = b"prompt,steps,size,mood\na,12,256x256,x\nb,many,256x256,x\n,12,256x256,x\nd,12,250x256,x\n"
    shown = preview("a.csv", data)
    found = located(shown)
    assert set(found) == {(3, "steps"), (4, "prompt"), (5, "size")}
    assert "'many' is not possible" in found[3, "steps"]
    assert "250 is not divisible by 8" in found[5, "size"]
    assert (shown.problem_count, shown.problems, shown.plan) == (3, [], None)


def test_rows_that_cannot_even_be_read_are_all_told() -> None:
    shown = preview("a.csv", b"prompt,size\na,big\nb,256x256\nc,d,e\nf,small\n")
    assert set(located(shown)) == {(2, "size"), (5, "size")}
    assert shown.sheet is not None
    assert [row.problems for row in shown.sheet.rows if row.line == 4] == [
        ["file: has 3 cells, but the header has 2 columns"]
    ]
    shown = preview("a.jsonl", b'{"prompt": "a"}\n{"prompt": \n{"prompt": "b", "stepps": 3}\n')
    assert set(located(shown)) == {(3, "stepps")}
    assert shown.problem_count == 2


def test_a_problem_far_down_is_shown_with_its_row() -> None:
    rows = "".join(f"prompt {n},{'x' if n == 4999 else 10}\n" for n in range(5000))
    shown = preview("a.csv", b"prompt,steps\n" + rows.encode())
    assert shown.sheet is not None
    assert (len(shown.sheet.rows), shown.sheet.row_count) == (101, 5000)
    assert set(located(shown)) == {(5001, "steps")}


def test_a_limit_of_the_pipeline_is_told_for_every_row() -> None:
    """Rows that are alike are checked together, and still each of them is wrong."""
    shown = preview("a.csv", b"prompt,size\na,2048x256\nb,2048x256\nc,256x256\n")
    assert set(located(shown)) == {(2, "size"), (3, "size")}


def test_rows_that_are_alike_are_still_checked_for_their_own() -> None:
    shown = preview("a.csv", f"prompt,seed\na,1\n{'x' * 10_001},2\nc,-3\nd,4\n".encode())
    assert set(located(shown)) == {(3, "prompt"), (4, "seed")}


def test_fields_of_the_form_are_no_rows_fault() -> None:
    shown = preview("a.txt", b"a\nb\n", num_inference_steps="many")
    assert [problem.field for problem in shown.problems] == ["num_inference_steps"]
    assert located(shown) == {}


def test_a_file_without_a_prompt_column_leads_to_its_columns() -> None:
    shown = preview("a.xlsx", workbook([["Caption", "CFG", "foo"], ["a fox", 5, 1], ["an owl", 6, 2]]))
    assert shown.lacks_prompt
    assert shown.sheet is not None
    assert [(column.title, column.parameter, column.guess) for column in shown.sheet.columns] == [
        ("Caption", "", "prompt"),
        ("CFG", "", "guidance_scale"),
        ("foo", "", ""),
    ]
    mapped = preview(
        "a.xlsx",
        workbook([["Caption", "CFG", "foo"], ["a fox", 5, 1]]),
        {"Caption": "prompt", "CFG": "guidance_scale", "foo": ""},
    )
    assert mapped.plan is not None
    assert mapped.plan.images[0].guidance_scale == 5


def test_templates_and_sweeps_are_expanded() -> None:
    shown = preview("a.txt", b"a {red|blue} __animal__\n", templates="all", sweep="steps: 5, 10, 15")
    assert shown.plan is not None
    assert len(shown.plan.images) == 12
    assert [image.prompt for image in shown.plan.images[::3]] == [
        "a red fox",
        "a red owl",
        "a blue fox",
        "a blue owl",
    ]
    assert sum(len(batch.indices) for batch in shown.batches) == 12


def test_pictures_are_matched_by_name_and_the_others_named() -> None:
    catalog = Catalog.load()
    inputs = {"a.png": REF, "b.png": "sha256:" + "1" * 64}

    def look(data: bytes) -> Preview:
        return preview_job(
            catalog,
            "tiny",
            {"inputs": json.dumps(inputs)},
            "a.csv",
            data,
            {},
            lambda refs: dict.fromkeys(refs, InputSize(64, 64)),
            dict,
            sizes,
        )

    shown = look(b"prompt,image\na fox,a.png\n")
    assert shown.plan is not None
    assert shown.unused_inputs == ["b.png"]
    assert "'../c.png' was not uploaded" in located(look(b"prompt,image\na fox,../c.png\n"))[2, "image"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a fox\nan owl", "txt"),
        ("a fox, red\nan owl, blue", "txt"),
        ("prompt,steps\na,5", "csv"),
        ("prompt\na", "csv"),
        ("prompt\tsteps\na\t5", "tsv"),
        ("Text\tcfg\na\t5", "tsv"),
        ('{"prompt": "a"}\n', "jsonl"),
        ("{red|blue} fox", "txt"),
        ("[" * 5000, "txt"),
        ("", "txt"),
    ],
)
def test_formats_are_guessed(text: str, expected: str) -> None:
    assert guess_format(text) == expected


def test_titles_of_other_programs_are_guessed() -> None:
    titles = {
        "Text": "prompt",
        "Negative": "negative_prompt",
        "CFG scale": "guidance_scale",
        "promt": "prompt",
        "x": "",
    }
    assert {title: guess_parameter(title) for title in titles} == titles


def test_a_spreadsheet_as_text_keeps_its_lines() -> None:
    text, ending = as_text("a.xlsx", workbook([["prompt", "steps"], ["a, b", 5], [None], ['say "c"', 6]]))
    assert ending == "csv"
    shown = preview("a.csv", text.encode())
    assert shown.sheet is not None
    assert [(row.line, row.cells) for row in shown.sheet.rows] == [(2, ["a, b", "5"]), (4, ['say "c"', "6"])]


def test_a_hundred_thousand_rows_are_previewed_quickly() -> None:
    rows = "".join(f"a fox number {n},{20 + n % 3},{n}\n" for n in range(100_000))
    started = time.process_time()
    shown = preview("a.csv", b"prompt,steps,seed\n" + rows.encode())
    assert shown.plan is not None
    assert len(shown.plan.images) == 100_000
    assert time.process_time() - started < 15


@pytest.mark.parametrize("name", ["../../etc/passwd.csv", "a.csv/../b.csv", "C:\\x\\..\\y.csv"])
def test_a_file_name_is_only_an_ending(name: str) -> None:
    assert preview(name, b"prompt\na\n").plan is not None
