"""Stars, rejections and tags: written as asked, by one statement, or refused."""

from collections.abc import Callable

import pytest
from rows import submit
from sqlalchemy import Engine, select

from farm.errors import InvalidSubmissionError, NotFoundError
from farm.marks import Change, mark_image, mark_images, read_rating, read_tags, split_tags
from farm.models import Activity, Image
from farm.picture_filter import Indices, Mark, PictureFilter
from farm.states import ImageState


def marks(engine: Engine, job_id: int) -> dict[int, tuple[int, list[str]]]:
    with engine.connect() as connection:
        rows = connection.execute(select(Image.index, Image.rating, Image.tags).where(Image.job_id == job_id))
        return {index: (rating, tags) for index, rating, tags in rows}


def test_one_picture_gets_what_is_asked_and_keeps_the_rest(engine: Engine) -> None:
    job_id = submit(engine, 2)
    mark_image(engine, job_id, 1, Change(rating=1))
    mark_image(engine, job_id, 1, Change(tags=("b", "a")))
    assert marks(engine, job_id) == {0: (0, []), 1: (1, ["a", "b"])}
    mark_image(engine, job_id, 1, Change(tags=()))
    assert marks(engine, job_id)[1] == (1, [])


def test_tags_are_added_and_removed_beside_those_that_are_there(engine: Engine) -> None:
    job_id = submit(engine, 3)
    mark_image(engine, job_id, 0, Change(tags=("old", "other")))
    changed = mark_images(engine, job_id, PictureFilter(), Change(add=("new", "other"), remove=("old",)), "ann")
    assert changed == 3
    assert marks(engine, job_id) == dict.fromkeys(range(3), (0, ["new", "other"]))


def test_many_are_chosen_by_number_and_by_filter_and_the_log_tells(engine: Engine) -> None:
    job_id, other = submit(engine, 6), submit(engine, 6)
    assert mark_images(engine, job_id, PictureFilter(indices=Indices.read("0,2-3")), Change(rating=-1), "ann") == 3
    assert mark_images(engine, job_id, PictureFilter(mark=Mark.REJECTED), Change(rating=0, add=("again",)), "ann") == 3
    assert [rating for rating, _ in marks(engine, job_id).values()] == [0] * 6
    assert [index for index, (_, tags) in marks(engine, job_id).items() if tags] == [0, 2, 3]
    assert all(mark == (0, []) for mark in marks(engine, other).values())
    with engine.connect() as connection:
        query = select(Activity.actor, Activity.details).where(Activity.action == "images.mark").order_by(Activity.id)
        first, second = connection.execute(query)
    assert first == ("ann", {"images": 3, "rating": -1, "chosen": {"images": "0,2-3"}})
    assert second[1]["chosen"] == {"mark": "rejected"}


def test_twenty_tags_are_the_most_and_nothing_is_written_beyond(engine: Engine) -> None:
    job_id = submit(engine, 2)
    mark_image(engine, job_id, 0, Change(tags=tuple(f"t{number:02d}" for number in range(20))))
    with pytest.raises(InvalidSubmissionError, match="more than 20"):
        mark_images(engine, job_id, PictureFilter(), Change(add=("one more",)))
    with pytest.raises(InvalidSubmissionError, match="more than 20"):
        mark_image(engine, job_id, 0, Change(add=("one more",)))
    assert marks(engine, job_id)[1] == (0, [])
    mark_images(engine, job_id, PictureFilter(), Change(add=("one more",), remove=("t00",)))
    assert len(marks(engine, job_id)[0][1]) == 20


def test_what_is_not_there_is_said(engine: Engine) -> None:
    job_id = submit(engine, 1)
    with pytest.raises(NotFoundError):
        mark_image(engine, job_id, 1, Change(rating=1))
    with pytest.raises(NotFoundError):
        mark_images(engine, job_id + 1, PictureFilter(), Change(rating=1))


@pytest.mark.parametrize(
    ("read", "value", "said"),
    [
        (read_tags, "portrait", "list"),
        (read_tags, [1], "list"),
        (read_tags, [" "], "1 to 50"),
        (read_tags, ["x" * 51], "1 to 50"),
        (read_tags, ["a,b"], "comma"),
        (read_tags, ["a\0b"], "cannot be seen"),
        (read_tags, ["a\u202eb"], "cannot be seen"),
        (read_tags, [str(number) for number in range(21)], "more than 20"),
        (read_rating, 2, "starred"),
        (read_rating, True, "starred"),
        (read_rating, None, "starred"),
        (read_rating, [1], "starred"),
        (lambda _: Change(), None, "changes nothing"),
    ],
)
def test_impossible_marks_are_refused(read: Callable[[object], object], value: object, said: str) -> None:
    with pytest.raises(InvalidSubmissionError, match=said):
        read(value)


def test_tags_are_read_with_spaces_put_in_order() -> None:
    assert split_tags(" for  the cover, a ,, b,a ") == ("a", "b", "for the cover")


@pytest.mark.parametrize(("text", "told"), [("3", "3"), ("7-9, 0,5", "0,5,7-9"), ("1,2,3,3-5", "1-5")])
def test_numbers_and_ranges(text: str, told: str) -> None:
    assert str(Indices.read(text)) == told


@pytest.mark.parametrize("text", ["", "a", "-1", "3-1", "1,,2", "9" * 30, "1-2-3", "٣"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(InvalidSubmissionError):
        Indices.read(text)


def test_a_filter_finds_by_state_seed_and_words(engine: Engine) -> None:
    job_id = submit(engine, 4)

    def found(chosen: PictureFilter) -> list[int]:
        with engine.connect() as connection:
            query = select(Image.index).where(Image.job_id == job_id, *chosen.conditions()).order_by(Image.index)
            return list(connection.scalars(query))

    with engine.connect() as connection:
        seeds = dict(connection.execute(select(Image.index, Image.seed).where(Image.job_id == job_id)).all())
    assert found(PictureFilter(seed=seeds[2])) == [2]
    assert found(PictureFilter(state=ImageState.PENDING)) == [0, 1, 2, 3]
    assert found(PictureFilter(state=ImageState.COMPLETED)) == []
    assert found(PictureFilter(text='"nothing of that kind"')) == []
    assert found(PictureFilter(indices=Indices(()))) == []
    assert PictureFilter().everything
    with pytest.raises(InvalidSubmissionError):
        PictureFilter(text="a\0b")
    with pytest.raises(InvalidSubmissionError):
        PictureFilter(tag="\ud800")
