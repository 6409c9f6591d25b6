"""Disks: whether there is room where the farm keeps things."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from farm.doctor.findings import Finding, error, ok, size, warning
from farm.settings import Settings

CHECK = "disk"
#: SDXL with its refiner takes 14 GiB in half precision, ten thousand pictures as much.
SCARCE_BYTES = 10 * 2**30
#: Postgres and the libraries fail in their own ways below this.
FULL_BYTES = 2**30


def check_disk(settings: Settings, scarce_bytes: int = SCARCE_BYTES) -> Iterator[Finding]:
    """Free space of each file system that holds data, models or objects."""
    places = {"FARM_DATA": settings.data, "FARM_MODELS": settings.models_directory}
    store = urlsplit(settings.effective_store_url)
    if store.scheme == "file":
        places["FARM_STORE_URL"] = Path(unquote(store.path))
    systems: dict[int, tuple[Path, list[str]]] = {}
    for name, directory in places.items():
        existing = _existing(directory)
        systems.setdefault(existing.stat().st_dev, (existing, []))[1].append(name)
    for existing, names in systems.values():
        usage = shutil.disk_usage(existing)
        message = f"{size(usage.free)} of {size(usage.total)} free at {existing} ({', '.join(names)})"
        remedy = f"Make room there, or let {' or '.join(names)} name a larger disk; finished jobs can be deleted."
        if usage.free < FULL_BYTES:
            yield error(CHECK, message, remedy)
        elif usage.free < scarce_bytes:
            yield warning(CHECK, message, remedy)
        else:
            yield ok(CHECK, message)
    for name, directory in places.items():
        existing = _existing(directory)
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            yield error(
                CHECK,
                f"{directory} ({name}) cannot be written to",
                f"Let {name} name a directory that this user may write to.",
            )


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
