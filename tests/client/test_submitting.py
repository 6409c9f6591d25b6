"""What can be submitted through the client, and what is refused."""

import random
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from running import RunningFarm

from producer import Farm, InvalidSubmissionError
from producer.client.parameters import Parameters, RowParameters
from producer.expand import SPEC_FIELDS
from producer.intake import KNOWN

#: This farm has no worker for it: such jobs wait.
NOBODY = {"pipeline": "sdxl-1.0"}
ROWS = 12_000


def test_every_parameter_is_known_to_editors() -> None:
    assert {*RowParameters.__annotations__} == {*KNOWN} - {"prompt", "seed"}
    # ``columns`` goes with a file; the sweep is an argument of its own.
    assert {*Parameters.__annotations__} - {"columns"} == {*SPEC_FIELDS} - {"sweep"}


def test_rows_of_an_iterator_are_one_job_in_little_memory(farm: Farm) -> None:
    """The rows come from what belongs to one thread, and are far more than what the client holds at once."""
    numbers = random.Random(1)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE prompts (text)")
    database.executemany("INSERT INTO prompts VALUES (?)", ((numbers.randbytes(400).hex(),) for _ in range(ROWS)))

    def rows() -> Iterator[dict[str, object]]:
        for number, (text,) in enumerate(database.execute("SELECT text FROM prompts")):
            yield {"prompt": text, "seed": number}

    tracemalloc.start()
    try:
        job = farm.submit(rows=rows(), steps=11, **NOBODY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert job.cancel().counts.total == ROWS
    assert job.image(ROWS - 1).seed == ROWS - 1
    assert job.image(0).parameters["num_inference_steps"] == 11
    # The rows are 10 MB of text, and more as objects.
    assert peak < 7_000_000


def test_an_iterator_that_fails_submits_nothing(farm: Farm) -> None:
    def prompts() -> Iterator[str]:
        yield from ("a fox" for _ in range(1_500))
        raise RuntimeError("the disk is full")

    before = farm.jobs(1)
    with pytest.raises(RuntimeError, match="the disk is full"):
        farm.submit(prompts(), **NOBODY)
    assert [job.id for job in farm.jobs(1)] == [job.id for job in before]


def test_the_same_key_is_the_same_job_also_of_many_rows(farm: Farm) -> None:
    few, many = ["a fox"], [f"picture {number}" for number in range(1_200)]
    for key, prompts in (("few", few), ("many", many)):
        first = farm.submit(prompts, idempotency_key=key, **NOBODY)
        assert farm.submit(prompts, idempotency_key=key, **NOBODY).id == first.id
        assert farm.submit(prompts, **NOBODY).cancel().id != first.cancel().id


def test_problems_have_their_field_line_and_place(farm: Farm) -> None:
    rows = [{"prompt": "a fox"}, {"prompt": "an owl", "guidance_scale": -1}]
    with pytest.raises(InvalidSubmissionError) as refused:
        farm.submit(rows=rows, **NOBODY)
    (problem,) = refused.value.problems
    assert (problem.field, problem.line, problem.pointer) == ("guidance_scale", 2, "/rows/1/guidance_scale")
    with pytest.raises(InvalidSubmissionError) as many:
        farm.submit(rows=(rows[number == 1_700] for number in range(2_000)), **NOBODY)
    assert [problem.line for problem in many.value.problems] == [1_701]


@pytest.mark.parametrize("count", [1, 1_500])
def test_what_json_cannot_say_is_refused_before_it_is_sent(farm: Farm, count: int) -> None:
    rows = [*({"prompt": "a fox"} for _ in range(count)), {"prompt": "an owl", "guidance_scale": float("nan")}]
    with pytest.raises(InvalidSubmissionError) as refused:
        farm.submit(rows=rows, **NOBODY)
    (problem,) = refused.value.problems
    assert str(problem) == f"line {count + 1}, guidance_scale: is nan; leave it out where there is no value"


def test_one_source_of_prompts_is_enough(farm: Farm) -> None:
    for wrong in ({}, {"prompts": ["a"], "rows": [{"prompt": "b"}]}):
        with pytest.raises(ValueError, match="one of prompts"):
            farm.submit(**wrong)
    with pytest.raises(TypeError, match="a list of strings"):
        farm.submit("a fox")


def test_pictures_may_be_paths_bytes_and_pil_images(farm: Farm, tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "teal")
    path = tmp_path / "teal.png"
    picture.save(path)
    name = farm.upload(path)
    rows = [{"prompt": "a", "image": given} for given in (picture, path, str(path), path.read_bytes(), name)]
    job = farm.submit(rows=rows, mask_image=picture, steps=4, **NOBODY)
    assert {(image.parameters["image"], image.parameters["mask_image"]) for image in job.images()} == {(name, name)}
    swept = farm.submit(["a"], sweep={"image": [path, picture.rotate(0)], "strength": [0.5, 0.6]}, **NOBODY)
    assert [image.parameters["image"] for image in swept.images()] == [name] * 4
    # In a file, names are paths beside it.
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "image": "teal.png"}\n')
    filed = farm.submit(file=tmp_path / "rows.jsonl", name="from a file", **NOBODY)
    assert filed.image(0).parameters["image"] == name
    with pytest.raises(TypeError, match="int is no picture"):
        farm.submit(["a"], image=7, **NOBODY)
    with pytest.raises(InvalidSubmissionError, match="is no picture"):
        farm.upload(b"no picture")
    for submitted in (job, swept, filed):
        submitted.cancel()


def test_an_estimate_submits_nothing(farm: Farm) -> None:
    before = farm.jobs(1)
    estimate = farm.estimate((f"picture {n}" for n in range(1_500)), images_per_prompt=2, **NOBODY)
    assert (estimate.image_count, estimate.seconds_until_done) == (3_000, None)
    assert [job.id for job in farm.jobs(1)] == [job.id for job in before]


def test_what_the_farm_has(running: RunningFarm, farm: Farm) -> None:
    assert {"tiny", "sdxl-1.0"} <= {pipeline["name"] for pipeline in farm.pipelines()}
    assert [worker["pipeline"] for worker in farm.workers()] == ["tiny"]
    assert isinstance(farm.queues(), list)
    farm.save_words("animal", "fox\nowl\n")
    assert farm.words()["animal"] == ["fox", "owl"]
    farm.delete_words("animal")
    assert "animal" not in farm.words()
    assert farm.me()["role"] == "admin"
    made = farm.add_user("ana", "viewer", "correct horse battery")
    assert farm.change_user(made["id"], role="operator")["role"] == "operator"
    assert farm.login_link("ana").startswith(f"{running.url}/enter/")
    assert "ana" in {user["name"] for user in farm.users()}
    assert farm.request("GET", "/healthz").json() == {"status": "ok"}
