"""Whether files are those that the model hub states: large ones by their SHA-256, the rest by git's hash.

The hub's cache keeps each file under the hash that was stated for it, and folders of links to these.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.adapters import SAFE
from farm.checkpoints.holdings import Holding
from farm.checkpoints.safe_file import damage

_SHA256, _GIT = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what it should be."""

    file: Path
    what: str


def find_damage(holding: Holding, on_file: Callable[[Path], None] = lambda _: None) -> Iterator[Damage]:
    """The damaged of a holding's files that are here; reads all of them, and tells each before."""
    assert holding.folder is not None or not holding.files  # noqa: S101 - files are in it
    for file in holding.files:
        on_file(file)
        name = file.relative_to(holding.folder or Path()).as_posix()
        stated = holding.stated.get(name)
        what = _differs(file, stated.size) if stated is not None else damage(file) if file.suffix == SAFE else None
        if what is not None:
            yield Damage(file, what)


def remove(file: Path) -> None:
    """Remove a file of the hub's cache, and what it is a link to, so that it is fetched again."""
    links = [file]
    while links[-1].is_symlink():
        links.append(links[-1].parent / links[-1].readlink())
    for link in links:
        link.unlink(missing_ok=True)


def _differs(file: Path, stated_size: int) -> str | None:
    size = file.stat().st_size
    if size != stated_size:
        return f"has {size} bytes, and the hub states {stated_size}"
    stated = file.resolve().name
    if _SHA256.fullmatch(stated):
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        return None if found == stated else f"has the SHA-256 {found}, and the hub states {stated}"
    if _GIT.fullmatch(stated):
        # git hashes a file behind its kind and length.
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        digest.update(file.read_bytes())
        return None if digest.hexdigest() == stated else "does not have the hash that the hub states"
    # A file system without links: copies have no hash in their names.
    return damage(file) if file.suffix == SAFE else None
