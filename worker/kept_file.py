"""A small JSON object on disk, beside the models: what workers of a machine have found out about its devices."""

import fcntl
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class KeptFile:
    """One such file. It is replaced as a whole, so that whoever reads it reads it whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """What is kept; nothing if there is no file, or a damaged one."""
        try:
            kept: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            logger.warning("%s is damaged; what it held is found anew", self.path)
            return {}
        return kept

    def keep(self, found: Mapping[str, Any]) -> None:
        """Add to it, over what had the same names; processes that do it at once wait for each other."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = {**self.read(), **found}
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False, encoding="utf-8") as file:
                json.dump(kept, file, indent=1, sort_keys=True)
            Path(file.name).replace(self.path)
