"""Pictures that go in: found in what is submitted, and uploaded once each."""

import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.errors import NotFoundError
from producer.client.connection import Connection, Json

if TYPE_CHECKING:
    from producer.client.parameters import PictureLike

#: Of ``farm.spec``, which would have to build all its models for it.
INPUT_FIELDS = ("image", "mask_image", "control_image", "ip_adapter_image")


async def upload(connection: Connection, picture: "PictureLike") -> str:
    """Store a picture, if it is not there yet; returns the name under which a spec speaks of it.

    Raises InvalidSubmissionError when it is no picture.
    """
    data = _bytes_of(picture)
    ref = f"sha256:{hashlib.sha256(data).hexdigest()}"
    try:
        # The same bytes are sent once; what is stored of them has a name of its own.
        answer = await connection.request("GET", f"/api/v1/inputs/{ref}")
    except NotFoundError:
        answer = await connection.request("POST", "/api/v1/inputs", content=data, repeatable=True)
    return str(answer.json()["input"])


class Uploads:
    """The pictures of one submission."""

    def __init__(self, connection: Connection, directory: Path = Path()) -> None:
        """Paths start in ``directory``."""
        self._connection = connection
        self._directory = directory
        self._refs: dict[str, str] = {}

    def beside(self, file: Path) -> "Uploads":
        """The same for paths that start in the directory of a file."""
        return Uploads(self._connection, file.parent)

    async def replaced(self, values: Mapping[str, Any]) -> Json:
        """The values, with names of the farm in place of pictures, which are uploaded."""
        result = dict(values)
        if isinstance(values.get("sweep"), Mapping):
            result["sweep"] = await self.replaced(values["sweep"])
        if result.keys().isdisjoint(INPUT_FIELDS):
            return result
        for field in INPUT_FIELDS:
            value = values.get(field)
            if isinstance(value, str) and field == "control_image":
                from farm.spec import listed

                value = listed(value)
            if isinstance(value, list | tuple):
                result[field] = [await self._replaced(one) for one in value]
            elif value is not None:
                result[field] = await self._replaced(value)
        return result

    async def named(self, name: str) -> str | None:
        """The farm's name for the picture in a file of this name; None if there is no such file."""
        path = self._directory / name
        if name not in self._refs:
            if not path.is_file():
                return None
            self._refs[name] = await upload(self._connection, path)
        return self._refs[name]

    async def _replaced(self, value: Any) -> Any:
        if isinstance(value, str):
            # What is no file is left to the farm, which knows the line to complain about.
            return await self.named(value) or value
        if isinstance(value, Path):
            return await self.named(str(value)) or await upload(self._connection, self._directory / value)
        return await upload(self._connection, value)


def _bytes_of(picture: "PictureLike") -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | Path):
        return Path(picture).read_bytes()
    if "PIL.Image" not in sys.modules or not isinstance(picture, sys.modules["PIL.Image"].Image):
        raise TypeError(f"{type(picture).__name__} is no picture; give a path, bytes or a PIL image")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
