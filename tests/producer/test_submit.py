"""Submission: all or nothing, with errors that name line, field and remedy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from farm.catalog import Catalog
from farm.errors import InvalidSubmissionError
from farm.models import Batch, Image, Job
from farm.states import BatchState, ImageState, JobState
from producer.intake import Intake, Row, canonical, read_file
from producer.submit import Receipt, submit_job

EXAMPLES = Path(__file__).parents[2] / "examples"


def submit(engine: Engine, intake: Intake, **fields: Any) -> Receipt:
    return submit_job(engine, Catalog.load(), "tiny", fields, intake)


def prompts(*texts: str) -> Intake:
    return Intake([Row({"prompt": text}) for text in texts])


def row_counts(engine: Engine) -> Mapping[str, int]:
    with engine.connect() as connection:
        return {
            table.__tablename__: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (Job, Batch, Image)
        }


def test_a_job_becomes_images_and_batches(engine: Engine) -> None:
    receipt = submit(engine, prompts(*"abc"), seed=42, images_per_prompt=3, batch_size=4, size="256x320", steps="6")

    assert (receipt.image_count, receipt.batch_count, receipt.seed) == (9, 3, 42)
    with Session(engine) as session:
        job = session.get_one(Job, receipt.job_id)
        images = session.scalars(select(Image).order_by(Image.index)).all()
        batches = session.scalars(select(Batch).order_by(Batch.id)).all()
    assert (job.state, job.image_count, job.name, job.pipeline) == (JobState.QUEUED, 9, "a", "tiny")
    assert [image.prompt for image in images] == list("aaabbbccc")
    assert [image.seed for image in images] == list(range(42, 51))
    assert {image.state for image in images} == {ImageState.PENDING}
    assert [sum(image.batch_id == batch.id for image in images) for batch in batches] == [4, 4, 1]
    assert batches[0].state is BatchState.READY
    assert batches[0].parameters.items() >= {
        ("pipeline", "tiny"),
        ("width", 256),
        ("height", 320),
        ("num_inference_steps", 6),
        ("guidance_scale", 5.0),
        ("refiner_split", 0.8),
    }
    assert images[0].parameters is None
    assert job.spec == {
        "images_per_prompt": 3,
        "batch_size": 4,
        "width": 256,
        "height": 320,
        "num_inference_steps": 6,
        "seed": 42,
    }


def test_rows_override_the_spec_and_are_grouped_to_full_batches(engine: Engine) -> None:
    text = "prompt,size,negative_prompt,seed\n" + "".join(
        f"p{n},{256 + 64 * (n % 2)}x256,{'blurry' if n % 3 else ''},{1000 + n}\n" for n in range(24)
    )
    receipt = submit(engine, read_file("rows.csv", text.encode()), batch_size=4)

    # Two widths times with and without a negative prompt: groups of 8, 8, 4 and 4 images.
    assert receipt.batch_count == 6
    with Session(engine) as session:
        for batch in session.scalars(select(Batch)):
            images = session.scalars(select(Image).where(Image.batch_id == batch.id)).all()
            assert len(images) == 4
            assert {256 + 64 * (image.index % 2) for image in images} == {batch.parameters["width"]}
            assert len({image.negative_prompt is None for image in images}) == 1
            assert all(image.seed == 1000 + image.index for image in images)


def test_batches_are_full_where_the_numbers_allow_it(engine: Engine) -> None:
    """Two sizes and three guidance scales make six groups; each leaves at most one batch that is not full."""
    rows = [
        Row(
            canonical(
                {
                    "prompt": f"prompt {n}",
                    "size": "256x256" if n % 2 else "320x256",
                    "guidance_scale": 3 + n % 3,
                    # What diffusers takes for each image does not part a batch.
                    "negative_prompt": f"not {n % 7}",
                    "prompt_2": "oil" if n % 5 else None,
                    "seed": n * 17,
                }
            )
        )
        for n in range(1000)
    ]
    receipt = submit_job(engine, Catalog.load(), "tiny", {"batch_size": 8}, Intake(rows))
    with engine.connect() as connection:
        sizes = connection.execute(select(func.count()).select_from(Image).group_by(Image.batch_id)).scalars().all()
    assert receipt.batch_count == len(sizes)
    assert sum(sizes) == 1000
    assert sum(size == 8 for size in sizes) / len(sizes) >= 0.95


def test_no_refiner_is_said_with_null(engine: Engine) -> None:
    submit(engine, prompts("a"), refiner_split=None)
    with Session(engine) as session:
        assert session.scalars(select(Batch)).one().parameters.get("refiner_split") is None


BAD_FILES = [
    ("empty.txt", b"", {}, "line 1, prompt: the file holds no prompt"),
    ("empty.csv", b"", {}, "line 1, prompt: the file is empty"),
    ("header-only.csv", b"prompt\n", {}, "line 1, prompt: the file holds no prompt"),
    ("column.tsv", b"Text\tCategory\na fox\tx\n", {}, "line 1, prompt: there is no such column"),
    (
        "typo.csv",
        b"prompt,guidence_scale\na,5\n",
        {},
        "line 1, guidence_scale: is no parameter; did you mean guidance_scale?",
    ),
    ("size.csv", b"prompt,size\na fox,256x256\nan owl,250x256\n", {}, "line 3, width: 250 is not divisible by 8"),
    ("size.jsonl", b'{"prompt": "a", "size": "big"}\n', {}, "line 1, size: 'big' is no size"),
    ("steps.csv", b"prompt,steps\na,0\nb,10000\n", {}, "line 2, num_inference_steps: '0' is not possible"),
    ("split.csv", b"prompt,refiner_split\na,1.0\n", {}, "line 2, refiner_split: '1.0' is not possible"),
    ("fewsteps.csv", b"prompt,steps\na,1\n", {}, "line 2, refiner_split: 0.8 of 1 steps leaves the base"),
    ("long.txt", b"fine\n" + b"x" * 100_000, {}, "line 2, prompt: has 100,000 characters; at most 10,000"),
    ("utf8.txt", b"fine\nbad \xff\n", {}, "line 2, prompt: byte 9 (0xff) is not UTF-8"),
    ("nul.txt", b"fine\nfine\nb\0d\n", {}, "line 3, prompt: holds a NUL character"),
    ("nul.jsonl", b'{"prompt": "b\\u0000d"}\n', {}, "line 1, prompt: holds a NUL character"),
    ("blank.csv", b"prompt,seed\n ,3\n", {}, "line 2, prompt: is empty"),
    ("broken.jsonl", b'{"prompt": "a"}\n{"prompt": \n', {}, "line 2, file: is no JSON"),
    ("number.jsonl", b"3\n", {}, "line 1, file: must be an object"),
    ("nan.jsonl", b'{"prompt": "a", "guidance_scale": NaN}\n', {}, "line 1, guidance_scale: nan is not possible"),
    (
        "field.jsonl",
        b'{"prompt": "a", "step": 3}\n',
        {},
        "line 1, step: is no parameter of an image; did you mean steps?",
    ),
    ("quote.csv", b'prompt\n"a\n', {}, "file: is no well-formed csv"),
    ("cells.csv", b"prompt\na,b\n", {}, "line 2, file: has 2 cells, but the header has 1 columns"),
    ("picture.png", b"a", {}, "file: 'picture.png' ends in 'png'; the farm reads txt, csv, tsv, jsonl"),
    (
        "a.txt",
        b"a",
        {"pipeline": "sdxl-9"},
        "pipeline: There is no pipeline 'sdxl-9'; the catalog holds demo, sdxl-1.0, sdxl-lcm, sdxl-lcm-lora, sdxl-lightning, sdxl-turbo, tiny, tiny-turbo.",
    ),
    ("a.txt", b"a", {"size": "250x256"}, "width: 250 is not divisible by 8; the nearest sizes are 248 and 256"),
    ("a.txt", b"a", {"width": "2048"}, "width: 2048 exceeds the 1024 of tiny"),
    ("a.txt", b"a", {"steps": "0"}, "num_inference_steps: '0' is not possible"),
    ("a.txt", b"a", {"steps": "10000"}, "num_inference_steps: '10000' is not possible"),
    ("a.txt", b"a", {"refiner_split": "1"}, "refiner_split: '1' is not possible"),
    ("a.txt", b"a", {"refiner_split": "nan"}, "refiner_split: 'nan' is not possible"),
    ("a.txt", b"a", {"seed": "-1"}, "seed: '-1' is not possible"),
    ("a.txt", b"a", {"seed": str(2**63 - 1), "images_per_prompt": 2}, "seed: "),
    ("a.txt", b"a", {"colour": "red"}, "colour: is no field of a job; the fields are"),
]


@pytest.mark.parametrize(("filename", "data", "fields", "message"), BAD_FILES, ids=lambda value: str(value)[:30])
def test_bad_input_is_refused_and_leaves_no_row(
    engine: Engine, filename: str, data: bytes, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSubmissionError) as refusal:
        submit_job(engine, Catalog.load(), "tiny", fields, read_file(filename, data))
    assert str(refusal.value).startswith(message) or message in str(refusal.value).splitlines()[0]
    assert row_counts(engine) == {"jobs": 0, "batches": 0, "images": 0}


def test_many_bad_lines_are_counted_and_the_first_hundred_shown(engine: Engine) -> None:
    data = b"prompt,steps\n" + b"a,0\n" * 250
    with pytest.raises(InvalidSubmissionError) as refusal:
        submit(engine, read_file("a.csv", data))
    assert len(refusal.value.problems) == 100
    assert [problem.line for problem in refusal.value.problems] == list(range(2, 102))
    assert str(refusal.value).endswith("... and 150 more")


def test_tsv_takes_quotes_literally_and_reports_ignored_columns() -> None:
    intake = read_file("p.tsv", b'Prompt\tCategory\na 12" tall fox\tAnimals\n"quoted\tx\n')
    assert [row.values["prompt"] for row in intake.rows] == ['a 12" tall fox', '"quoted']
    assert [row.line for row in intake.rows] == [2, 3]
    assert intake.ignored_columns == ["Category"]


def test_csv_cells_may_span_lines_and_lines_stay_right() -> None:
    intake = read_file("p.csv", b'\xef\xbb\xbfPrompt,Steps\r\n"two\nlines",4\r\n\r\nnext,5\r\n')
    assert [(row.line, row.values) for row in intake.rows] == [
        (2, {"prompt": "two\nlines", "num_inference_steps": "4"}),
        (5, {"prompt": "next", "num_inference_steps": "5"}),
    ]


def test_txt_keeps_other_line_separators_inside_a_prompt() -> None:
    intake = read_file("p.txt", "one\u2028still one\n\n two \n".encode())
    assert [(row.line, row.values["prompt"]) for row in intake.rows] == [(1, "one\u2028still one"), (3, " two ")]
