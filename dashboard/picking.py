"""Reads which pictures are meant, and what becomes of them, from addresses, forms and JSON."""

from collections.abc import Mapping
from typing import Any, TypeVar

from flask import request
from werkzeug.datastructures import MultiDict

from dashboard.queries.pictures import Place, read_place
from farm.errors import InvalidSubmissionError, Problem
from farm.marks import Change, read_rating, read_tags, split_tags
from farm.picture_filter import Indices, Mark, PictureFilter
from farm.states import ImageState

Named = TypeVar("Named", ImageState, Mark)

FILTER_FIELDS = ("state", "mark", "tag", "q", "seed", "images")
#: Pictures of several jobs that are chosen one by one.
MAX_PLACES = 1_000


def query_filter(*, with_indices: bool = True) -> PictureFilter:
    """The filter that an address asks for; fields of a form that were left empty do not matter."""
    return text_filter(request.args, with_indices=with_indices)


def text_filter(values: Mapping[str, str], *, with_indices: bool = True) -> PictureFilter:
    """A filter from text. Raises InvalidSubmissionError."""
    given = {name: text for name in FILTER_FIELDS if (text := values.get(name, "").strip())}
    seed = given.get("seed")
    if seed is not None and not (seed.isascii() and seed.isdigit() and len(seed) <= 19):
        raise _refusal("seed", "must be a whole number")
    return PictureFilter(
        state=_named("state", given.get("state"), ImageState),
        mark=_named("mark", given.get("mark"), Mark),
        tag=given.get("tag"),
        text=given.get("q"),
        seed=None if seed is None else int(seed),
        indices=Indices.read(given["images"]) if with_indices and "images" in given else None,
    )


def form_filter(form: "MultiDict[str, str]", job_id: int) -> PictureFilter:
    """Which of a job's pictures a form chose: one by one (``picture``, or ``images`` as 0,5,7-9), or with ``all`` what
    its filter finds. Raises InvalidSubmissionError for none.
    """
    if form.get("all"):
        return text_filter(form, with_indices=False)
    if (text := form.get("images", "").strip()) != "":
        return PictureFilter(indices=Indices.read(text))
    places = form_places(form)
    if any(place.job_id != job_id for place in places):
        raise _refusal("picture", f"must all be of job {job_id}")
    return PictureFilter(indices=Indices.of(place.index for place in places))


def form_places(form: "MultiDict[str, str]") -> list[Place]:
    """Pictures of any jobs that a form chose: ``picture`` fields, or ``pictures`` with commas between them."""
    parts = [*form.getlist("picture"), *form.get("pictures", "").split(",")]
    places = [read_place("pictures", part.strip()) for part in parts if part.strip()]
    if not places:
        raise _refusal("pictures", "are none; select some first")
    if len(places) > MAX_PLACES:
        raise _refusal("pictures", f"are {len(places):,}, and at most {MAX_PLACES:,} are taken at once")
    return list(dict.fromkeys(places))


def json_filter(body: Mapping[str, Any], *, required: bool = False) -> PictureFilter:
    """``images`` (a list of numbers, or text such as 0,5,7-9) and ``filter`` of a JSON body. Raises
    InvalidSubmissionError, also if both are missing and one is ``required``.
    """
    if required and "images" not in body and "filter" not in body:
        raise _refusal("images", "are missing; name some as [0, 5] or 0,5,7-9, or give a filter ({} is all)")
    given = body.get("filter", {})
    if not isinstance(given, dict):
        raise _refusal("filter", 'must be an object such as {"mark": "starred"}')
    for name, value in given.items():
        if name not in FILTER_FIELDS[:-1]:
            raise _refusal("filter", f"has no {name[:40]!r}, only {', '.join(FILTER_FIELDS[:-1])}")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _refusal(name, "must be text, or a number")
    texts = {name: str(value) for name, value in given.items()}
    images = body.get("images")
    chosen = text_filter(texts, with_indices=False)
    if images is None:
        return chosen
    if isinstance(images, list) and all(isinstance(index, int) and not isinstance(index, bool) for index in images):
        images = ",".join(map(str, images))
        indices = Indices.read(images) if images else Indices(())
    elif isinstance(images, str):
        indices = Indices.read(images)
    else:
        raise _refusal("images", "must be numbers such as [0, 5], or text such as 0,5,7-9")
    return PictureFilter(chosen.state, chosen.mark, chosen.tag, chosen.text, chosen.seed, indices)


def json_change(body: Mapping[str, Any], fields: tuple[str, ...]) -> Change:
    """What becomes of the pictures, from a JSON body. Raises InvalidSubmissionError."""
    known = (*fields, *(("images", "filter") if "add_tags" in fields else ()))
    for name in body:
        if name not in known:
            raise _refusal(name[:60], f"is no field here; there are {', '.join(known)}")
    return Change(
        rating=read_rating(body["rating"]) if "rating" in body else None,
        tags=read_tags(body["tags"]) if "tags" in body else None,
        add=read_tags(body.get("add_tags", []), "add_tags"),
        remove=read_tags(body.get("remove_tags", []), "remove_tags"),
    )


def form_change(form: Mapping[str, str]) -> Change:
    """What becomes of the pictures, from a form: the pressed button is ``do``. Raises InvalidSubmissionError."""
    action = form.get("do", "")
    if action in ("add_tags", "remove_tags"):
        tags = split_tags(form.get("tags", ""))
        if not tags:
            raise _refusal("tags", "are empty; write one or more, with commas between them")
        return Change(add=tags) if action == "add_tags" else Change(remove=tags)
    if action == "set_tags":
        return Change(tags=split_tags(form.get("tags", "")))
    return Change(rating=read_rating(action, "do"))


def _named(field: str, text: str | None, names: type[Named]) -> Named | None:
    if text is None:
        return None
    try:
        return names(text)
    except ValueError:
        raise _refusal(field, f"must be one of {', '.join(name.value for name in names)}") from None


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
