"""Where the farms of this user are: ``farm up`` records its address and a token, the user's commands find them."""

import json
import os
from pathlib import Path
from typing import Any

import platformdirs

DEFAULT_FARM_URL = "http://127.0.0.1:8000"


def _record_file() -> Path:
    return Path(platformdirs.user_state_dir("sdxl-farm")) / "farm.json"


def record_token(url: str, token: str) -> None:
    """Remember what lets this user's programs into the farm at this address: before it answers, so that no program
    finds the farm and not the token.
    """
    record = _read()
    _write({**record, "tokens": {**record.get("tokens", {}), url: token}})


def record_farm(url: str) -> None:
    """Remember the address of the farm that this user started last."""
    _write({**_read(), "url": url})


def forget_farm(url: str) -> None:
    """Forget the farm at this address."""
    record = _read()
    record.get("tokens", {}).pop(url, None)
    if record.get("url") == url:
        del record["url"]
    if record:
        _write(record)


def find_farm() -> str:
    """Address of the farm to talk to: ``FARM_URL``, else the recorded one, else the default."""
    return (os.environ.get("FARM_URL") or _read().get("url") or DEFAULT_FARM_URL).rstrip("/")


def find_token(url: str) -> str | None:
    """The API token for the farm at this address: ``FARM_TOKEN``, else the recorded one."""
    return os.environ.get("FARM_TOKEN") or _read().get("tokens", {}).get(url)


def _read() -> dict[str, Any]:
    try:
        record = json.loads(_record_file().read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(record: dict[str, Any]) -> None:
    """Under its name only when it is complete, and for nobody else to read: it holds secrets."""
    file = _record_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(file)
