"""Saves what the farm delivers: a file appears under its name only when it is complete."""

import hashlib
from pathlib import Path

import anyio
import anyio.to_thread

from producer.client.connection import Connection

PARTIAL = ".part"


async def save(connection: Connection, url: str, path: Path) -> None:
    """Save what is at the address; raises FarmError and OSError."""
    data = (await connection.request("GET", url)).content
    await anyio.to_thread.run_sync(_write, path, data)


async def save_stream(connection: Connection, url: str, path: Path) -> None:
    """The same for what is too large for the memory; raises FarmError and OSError, and then there is no file."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            async with connection.stream(url) as response:
                async for chunk in response.aiter_bytes():
                    await anyio.to_thread.run_sync(file.write, chunk)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


async def is_there(path: Path, sha256: str | None) -> bool:
    """Whether the file is there, with this content if it is known."""
    return await anyio.to_thread.run_sync(_is_there, path, sha256)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + PARTIAL)
    partial.write_bytes(data)
    partial.replace(path)


def _is_there(path: Path, sha256: str | None) -> bool:
    if not path.is_file():
        return False
    if sha256 is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
