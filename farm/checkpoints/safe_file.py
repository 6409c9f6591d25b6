"""Whether a file of safetensors is whole, as its header tells; no weight is read.

Its header names the place of each tensor behind it, so that the file's length is known.
"""

import json
from pathlib import Path

from farm.fitting import MAX_HEADER_BYTES


def damage(file: Path) -> str | None:
    """What is wrong with the file, None if nothing is. Raises OSError if it cannot be read."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        header = json.loads(text)
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        wanted = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "is no file of safetensors"
    return None if size == wanted else f"has {size} bytes, and should have {wanted}"
