"""What of the catalog's checkpoints and adapters is on this machine. Asks nobody, and hashes nothing."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.adapters import SAFE
from farm.catalog import Catalog
from farm.checkpoints.needs import Entry, Layout, Need, all_entries, kind_of, needs_of
from farm.checkpoints.safe_file import damage
from farm.checkpoints.selection import IncompleteError, wanted_files

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

#: The catalog's tables, by what their entries are.
TABLES = {
    "pipeline": "pipelines",
    "LoRA": "loras",
    "textual inversion": "textual_inversions",
    "ControlNet": "controlnets",
    "IP-Adapter": "ip_adapters",
}


@dataclass(frozen=True, slots=True)
class Holding:
    """What of a need is on this machine."""

    need: Need
    folder: Path | None
    """Where its files are; None if nothing is there."""
    wanted: tuple[str, ...]
    """The files that are read, as they are called in the folder; empty where that cannot be told yet."""
    missing: str | None
    """What is missing or damaged; None if nothing is."""
    stated: Mapping[str, "RepoFile"]
    """What the hub stated of files when they were fetched."""

    @property
    def files(self) -> list[Path]:
        """Those of them that are here."""
        return [] if self.folder is None else [self.folder / name for name in self.wanted if self._is_here(name)]

    @property
    def is_complete(self) -> bool:
        """Whether all is here."""
        return self.missing is None

    @property
    def is_usable(self) -> bool:
        """Whether a worker here could load it: all is here, or it makes it."""
        return self.is_complete or (self.need.self_made and self.folder is None)

    @property
    def size(self) -> int:
        """Bytes of the files that are here."""
        return sum(file.stat().st_size for file in self.files)

    def _is_here(self, name: str) -> bool:
        return self.folder is not None and (self.folder / name).is_file()


def entry_key(entry: Entry) -> str:
    """An entry's place in the catalog: ``pipelines.sdxl-1.0``, ``loras.lcm-lora-sdxl``."""
    return f"{TABLES[kind_of(entry)]}.{entry.name}"


def held_entries(catalog: Catalog, models_directory: Path) -> list[str]:
    """The places of the entries that a worker here could load without fetching anything."""
    return [
        entry_key(entry)
        for entry in all_entries(catalog)
        if all(look(need).is_usable for need in needs_of(entry, catalog, models_directory))
    ]


def look(need: Need) -> Holding:
    """What of it is on this machine."""
    if need.path is None:
        return _in_cache(need)
    if need.layout is Layout.FILE:
        names = {need.name} if (need.path / need.name).is_file() else set()
    else:
        names = {file.relative_to(need.path).as_posix() for file in need.path.rglob("*") if file.is_file()}
    folder = need.path if names else None
    return _holding(need, folder, names, {})


def _in_cache(need: Need) -> Holding:
    """Of the model hub's cache, which belongs to all programs of this user."""
    assert need.repository is not None  # noqa: S101 - it has no path
    try:
        from huggingface_hub import get_cached_repo_tree, snapshot_download
        from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        return Holding(need, None, (), "cannot be told without pip install 'sdxl-farm[worker]'", {})
    try:
        # Asked for no file it tells where they would be.
        folder = Path(snapshot_download(need.repository, local_files_only=True, allow_patterns=[]))
    except LocalEntryNotFoundError:
        return Holding(need, None, (), "nothing of it is here", {})
    except HFValidationError:
        return Holding(need, None, (), "is neither a folder of this machine nor owner/name on the model hub", {})
    try:
        stated = {file.path: file for file in get_cached_repo_tree(need.repository)}
    except CachedRepoTreeNotFoundError:
        # Fetched by an older program: all that is known are the files.
        stated = {}
    names = stated or {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return _holding(need, folder, names, stated)


def _holding(need: Need, folder: Path | None, names: Collection[str], stated: Mapping[str, "RepoFile"]) -> Holding:
    if folder is None:
        missing = "workers write it when they first need it" if need.self_made else f"there is no {need.where}"
        return Holding(need, None, (), missing, stated)
    try:
        wanted = wanted_files(need, names, _reader(folder))
    except IncompleteError as incomplete:
        return Holding(need, folder, (), str(incomplete), stated)
    here = [name for name in wanted if (folder / name).is_file()]
    lacking = [name for name in wanted if name not in here]
    damaged = [f"{name} {what}" for name in here if (what := _what_is_wrong(folder / name, stated.get(name)))]
    wrong = [*(f"{name} is missing" for name in lacking), *damaged]
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Holding(need, folder, tuple(wanted), f"{wrong[0]}{more}" if wrong else None, stated)


def _what_is_wrong(file: Path, stated: "RepoFile | None") -> str | None:
    """As far as it can be told without reading all of it."""
    if stated is not None and file.stat().st_size != stated.size:
        return f"has {file.stat().st_size} bytes, and should have {stated.size}"
    return damage(file) if file.suffix == SAFE else None


def _reader(folder: Path) -> Callable[[str], dict[str, Any]]:
    def read(name: str) -> dict[str, Any]:
        try:
            read: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise IncompleteError(f"{name} is missing") from None
        except ValueError:
            raise IncompleteError(f"{name} is damaged") from None
        return read

    return read
