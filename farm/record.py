"""Where the farm of this user is: ``farm up`` records its address, the user's commands find it."""

import json
import os
from pathlib import Path

import platformdirs

from farm.settings import DEFAULT_FARM_URL


def _record_file() -> Path:
    return Path(platformdirs.user_state_dir("sdxl-farm")) / "farm.json"


def record_farm(url: str) -> None:
    """Remember the address of the farm that this user started."""
    file = _record_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"url": url}), encoding="utf-8")


def forget_farm(url: str) -> None:
    """Forget the address, unless another farm was recorded since."""
    if _recorded() == url:
        _record_file().unlink(missing_ok=True)


def find_farm() -> str:
    """Address of the farm to talk to: ``FARM_URL``, else the recorded one, else the default."""
    return (os.environ.get("FARM_URL") or _recorded() or DEFAULT_FARM_URL).rstrip("/")


def _recorded() -> str | None:
    try:
        return str(json.loads(_record_file().read_text(encoding="utf-8"))["url"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
