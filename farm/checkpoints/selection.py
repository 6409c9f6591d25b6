"""Which files of a folder or repository are read, by diffusers' rules: safetensors alone, the variant's first."""

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath
from typing import Any

from farm.checkpoints.needs import Layout, Need

INDEX = "model_index.json"
#: Weights as diffusers and transformers call them, whole or in parts.
_STEM = r"(diffusion_pytorch_model|model)"
_PART = r"(-\d{5}-of-\d{5})?"
_DESCRIPTION = (".json", ".txt", ".model")

ReadJson = Callable[[str], dict[str, Any]]
"""Reads a file by its name."""


class IncompleteError(Exception):
    """Something that is needed is not among the files; the message says what."""


def wanted_files(need: Need, names: Collection[str], read_json: ReadJson) -> list[str]:
    """Those of ``names`` that are read. Raises IncompleteError when they would not do."""
    if need.layout is Layout.FILE:
        found = [need.name] if need.name in names else []
        return _some(found, need.name)
    if need.layout is Layout.MODEL:
        return _component(need.name, names, need.variant)
    if INDEX not in names:
        raise IncompleteError(f"there is no {INDEX}")
    components = _components(read_json(INDEX))
    if need.layout is Layout.CONFIG:
        return sorted(
            name
            for name in names
            if name.endswith(_DESCRIPTION) and (_folder(name) in components or name == INDEX) and ".index" not in name
        )
    if need.variant and not any(f".{need.variant}." in name or f".{need.variant}-" in name for name in names):
        # Then diffusers takes no other either.
        raise IncompleteError(f"there are no weights of the variant {need.variant}")
    wanted = {INDEX}
    for component in components:
        wanted.update(_component(component, names, need.variant))
    # diffusers asks for the weights of all folders, and counts a repository as fetched only with these; also for what
    # stands outside of folders and describes something.
    for folder in {_folder(name) for name in names if name.count("/") <= 1}:
        wanted.update(_weights(folder, names, need.variant))
    wanted.update(name for name in names if "/" not in name and name.endswith((".json", ".txt")))
    return sorted(wanted)


def _components(index: dict[str, Any]) -> set[str]:
    """The folders of a pipeline's components."""
    return {
        name
        for name, kind in index.items()
        if isinstance(kind, list) and kind and kind[0] is not None and not name.startswith("_")
    }


def _component(folder: str, names: Collection[str], variant: str | None) -> list[str]:
    """The files of one component: of a model its configuration and weights, of a tokenizer or scheduler all."""
    prefix = f"{folder}/" if folder else ""
    inside = [name for name in names if _folder(name) == folder]
    if not inside:
        raise IncompleteError(f"there is no {folder or 'file'}")
    if f"{prefix}config.json" in inside:
        weights = _weights(folder, names, variant)
        return [f"{prefix}config.json", *_some(weights, f"{prefix}*.safetensors")]
    return _some([name for name in inside if name.endswith(_DESCRIPTION)], f"{prefix}config.json")


def _weights(folder: str, names: Collection[str], variant: str | None) -> list[str]:
    """Weights in a folder and their index: those of the variant, else those without one."""
    inside = [name for name in names if _folder(name) == folder]
    for pattern in _patterns(variant):
        found = [name for name in inside if re.fullmatch(pattern, PurePosixPath(name).name)]
        if any(name.endswith(".safetensors") for name in found):
            _require_all_parts(found)
            return sorted(found)
    return []


def _patterns(variant: str | None) -> Iterator[str]:
    if variant:
        v = re.escape(variant)
        yield rf"{_STEM}\.{v}{_PART}\.safetensors|{_STEM}\.safetensors\.index\.{v}\.json"
        # As they were called formerly.
        yield rf"{_STEM}{_PART}\.{v}\.safetensors|{_STEM}\.safetensors\.{v}\.index\.json"
    yield rf"{_STEM}{_PART}\.safetensors|{_STEM}\.safetensors\.index\.json"


def _require_all_parts(found: list[str]) -> None:
    for name in found:
        if part := re.search(r"-\d{5}-of-(\d{5})", name):
            parts = sum("-of-" in other for other in found)
            if parts < int(part[1]):
                raise IncompleteError(f"{parts} of {int(part[1])} parts are there, as of {name}")


def _some(found: list[str], what: str) -> list[str]:
    if not found:
        raise IncompleteError(f"there is no {what}")
    return found


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
