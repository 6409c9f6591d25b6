"""Tags of workers, and what jobs require of them: ``vram>=24, site=lab``.

A worker's tags are words (``fast``) or words with a value (``site=lab``, ``vram=80``). A requirement is a list of
terms, all of which must hold: ``fast``, ``site=lab``, ``vram>=24``, ``vram<=48``.
"""

import re
from collections.abc import Collection, Mapping

_NAME = r"[a-z][a-z0-9_-]{0,30}"
_VALUE = r"[A-Za-z0-9][A-Za-z0-9._ -]{0,60}"
_TAG = re.compile(rf"({_NAME})(?:=({_VALUE}))?")
_TERM = re.compile(rf"({_NAME})(?:\s*(=|>=|<=)\s*({_VALUE}))?")
#: Terms of one requirement.
_MOST = 8


def read_tags(text: str) -> list[str]:
    """Tags between commas, in order. Raises ValueError for one that is none."""
    tags = sorted({part.strip() for part in text.split(",") if part.strip()})
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is no tag; write a word such as fast, or a word and a value such as site=lab")
    return tags


def normal_requirement(text: str) -> str:
    """A requirement as it is kept and compared: terms sorted, without spaces. Raises ValueError."""
    terms = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _TERM.fullmatch(part)
        if found is None or (found[2] in (">=", "<=") and _number(found[3]) is None):
            raise ValueError(f"{part!r} is no requirement; write terms such as fast, site=lab or vram>=24, and commas")
        terms.add(found[1] + (found[2] or "") + (found[3] or "").strip())
    if len(terms) > _MOST:
        raise ValueError(f"has {len(terms)} terms, and at most {_MOST} are taken")
    return ",".join(sorted(terms))


def satisfies(tags: Collection[str], requirement: str) -> bool:
    """Whether a worker with these tags may render for a job with this (normal) requirement."""
    values: Mapping[str, str] = dict(tag.partition("=")[::2] for tag in tags)
    return all(_holds(values, term) for term in filter(None, requirement.split(",")))


def _holds(values: Mapping[str, str], term: str) -> bool:
    found = _TERM.fullmatch(term)
    if found is None or found[1] not in values:
        return False
    _, comparison, wanted = found.groups()
    value = values[found[1]]
    if comparison is None:
        return True
    if comparison == "=":
        return value == wanted
    number, limit = _number(value), _number(wanted)
    if number is None or limit is None:
        return False
    return number >= limit if comparison == ">=" else number <= limit


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
