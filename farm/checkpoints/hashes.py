"""Whether files are those that the model hub states: large ones by their SHA-256, the rest by git's hash."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farm.adapters import SAFE
from farm.checkpoints.holdings import Holding
from farm.checkpoints.safe_file import damage

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile


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
        what = _differs(file, stated) if stated is not None else damage(file) if file.suffix == SAFE else None
        if what is not None:
            yield Damage(file, what)


def remove(file: Path) -> None:
    """Remove a file of the hub's cache, and what it is a link to, so that it is fetched again."""
    links = [file]
    while links[-1].is_symlink():
        links.append(links[-1].parent / links[-1].readlink())
    for link in links:
        link.unlink(missing_ok=True)


def _differs(file: Path, stated: "RepoFile") -> str | None:
    size = file.stat().st_size
    if size != stated.size:
        return f"has {size} bytes, and the hub states {stated.size}"
    if stated.lfs is None:
        # git hashes a file behind its kind and length.
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        digest.update(file.read_bytes())
        return None if digest.hexdigest() == stated.blob_id else "does not have the hash that the hub states"
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if found == stated.lfs.sha256 else f"has the SHA-256 {found}, and the hub states {stated.lfs.sha256}"
