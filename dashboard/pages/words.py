"""The page of the lists of words that prompt templates name."""

from http import HTTPStatus
from itertools import islice

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from dashboard.context import context
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from producer.words import delete_word_list, save_word_list, word_lists

blueprint = Blueprint("words", __name__)

#: Words of each list that are shown; the whole of it is where it is edited.
WORDS_SHOWN = 12


@blueprint.get("/words")
def index() -> str:
    """All lists; ``edit`` names the one whose words are in the field."""
    name = request.args.get("edit", "")
    lists = word_lists(context().engine)
    if name and name not in lists:
        raise NotFoundError(f"There is no list of words {name!r}.")
    return _page(name, "\n".join(lists.get(name, ())))


@blueprint.post("/words")
def save() -> Response | tuple[str, int]:
    """Store a list, from the field or from a file, in place of one of this name."""
    name, words = request.form.get("name", "").strip(), request.form.get("words", "")
    file = request.files.get("file")
    try:
        if file is not None and file.filename:
            if words.strip():
                raise InvalidSubmissionError([Problem("file", "cannot be sent together with words; clear one of them")])
            words = _decoded(file.read())
            name = name or file.filename.rpartition(".")[0].lower()
        save_word_list(context().engine, name, words)
    except InvalidSubmissionError as error:
        return _page(name, words, error), HTTPStatus.UNPROCESSABLE_ENTITY
    return redirect(url_for("words.index"), HTTPStatus.SEE_OTHER)


@blueprint.post("/words/delete")
def delete() -> Response:
    """Remove a list; jobs that were submitted with it keep their prompts."""
    delete_word_list(context().engine, request.form.get("name", ""))
    return redirect(url_for("words.index"), HTTPStatus.SEE_OTHER)


def _page(name: str, words: str, error: InvalidSubmissionError | None = None) -> str:
    lists = word_lists(context().engine)
    shown = [
        {"name": key, "count": len(found), "words": list(islice(found, WORDS_SHOWN))} for key, found in lists.items()
    ]
    problems = error.problems if error else []
    return render_template("words.html", lists=shown, name=name, words=words, problems=problems)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidSubmissionError([Problem("file", f"is not UTF-8 ({error.reason}); save it as UTF-8")]) from None
