"""Lists of words, which prompt templates name as ``__animal__``."""

import re
from collections.abc import Mapping, Sequence

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from farm.activity import note
from farm.errors import InvalidSubmissionError, NotFoundError, Problem
from farm.models import WordList

MAX_WORDS = 100_000
MAX_WORD_CHARACTERS = 2_000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9/-]|_(?!_)){0,62}")


def save_word_list(engine: Engine, name: str, text: str, by: str | None = None) -> Sequence[str]:
    """Store a list, one word (or phrase) a line, in place of one of this name; returns its words.

    Empty lines, and lines that begin with ``#``, are left out, as in the word lists of the web UIs. ``by`` is who
    does it, for the activity log. Raises InvalidSubmissionError.
    """
    if not _NAME.fullmatch(name):
        raise _refusal("name", f"{name[:80]!r} is not possible; write small letters, digits, -, / and single _")
    lines = (line.strip() for line in text.splitlines())
    words = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not words:
        raise _refusal("words", "are missing; write one a line")
    if len(words) > MAX_WORDS:
        raise _refusal("words", f"are {len(words):,}; at most {MAX_WORDS:,} are taken")
    for number, word in enumerate(words, start=1):
        if len(word) > MAX_WORD_CHARACTERS or "\0" in word:
            raise _refusal("words", f"number {number} is too long, or holds a NUL character")
    row = {"name": name, "words": words}
    with engine.begin() as connection:
        connection.execute(
            insert(WordList)
            .values(row)
            .on_conflict_do_update(index_elements=["name"], set_={"words": words, "updated_at": func.now()})
        )
        if by is not None:
            note(connection, by, "words.save", list=name, words=len(words))
    return words


def word_lists(engine: Engine) -> Mapping[str, Sequence[str]]:
    """All lists, by name."""
    with engine.connect() as connection:
        rows = connection.execute(select(WordList.name, WordList.words).order_by(WordList.name)).all()
        return {row.name: row.words for row in rows}


def delete_word_list(engine: Engine, name: str, by: str | None = None) -> None:
    """Remove a list; raises NotFoundError."""
    with engine.begin() as connection:
        if connection.execute(delete(WordList).where(WordList.name == name)).rowcount != 1:
            raise NotFoundError(f"There is no list of words {name!r}.")
        if by is not None:
            note(connection, by, "words.delete", list=name)


def _refusal(field: str, message: str) -> InvalidSubmissionError:
    return InvalidSubmissionError([Problem(field, message)])
