"""An image of a job, asynchronously."""

import builtins
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from producer.client.connection import Connection, Json
from producer.client.errors import MissingPackageError, NoPictureError
from producer.client.fields import ImageFields
from producer.client.files import save

if TYPE_CHECKING:
    import numpy
    import numpy.typing
    from PIL.Image import Image as Picture


class AsyncImage(ImageFields):
    """One picture of a job, as it was when somebody asked for it."""

    def __init__(self, connection: Connection, data: Json, row: Mapping[str, Any] | None = None) -> None:
        self._connection = connection
        self._data = data
        self._row = row

    @property
    @override
    def data(self) -> Json:
        return self._data

    @property
    @override
    def row(self) -> Mapping[str, Any] | None:
        return self._row

    async def refresh(self) -> "AsyncImage":
        """Ask for it anew."""
        self._data = await self._connection.send("GET", f"/api/v1/jobs/{self.job_id}/images/{self.index}")
        return self

    async def bytes(self) -> builtins.bytes:
        """Its file, as it was delivered. Raises NoPictureError until it is finished."""
        return (await self._connection.request("GET", self._url_of("file_url"))).content

    async def pil(self) -> "Picture":
        """Its picture; of latents their thumbnail. Raises NoPictureError until it is finished."""
        return _opened(await (self.thumbnail_bytes() if self._is_latents else self.bytes()))

    async def thumbnail(self) -> "Picture":
        """A small version of it. Raises NoPictureError until it is finished."""
        return _opened(await self.thumbnail_bytes())

    async def thumbnail_bytes(self) -> builtins.bytes:
        """The small version as WebP. Raises NoPictureError until it is finished."""
        return (await self._connection.request("GET", self._url_of("thumbnail_url"))).content

    async def png(self) -> builtins.bytes:
        """Its picture as PNG, whatever it was delivered as. Raises NoPictureError until it is finished."""
        if self.data["output_format"] == "png":
            return await self.bytes()
        buffer = io.BytesIO()
        (await self.pil()).save(buffer, "PNG")
        return buffer.getvalue()

    async def latents(self) -> "numpy.typing.NDArray[numpy.floating[Any]]":
        """Its latents (4, height / 8, width / 8), of an image with the ``output_format`` latents.

        Raises NoPictureError for others, MissingPackageError without numpy and safetensors.
        """
        if not self._is_latents:
            raise NoPictureError(
                f"Image {self.index} of job {self.job_id} was delivered as {self.data['output_format']}; "
                "submit it with output_format='latents' to get its latents."
            )
        try:
            from safetensors.numpy import load
        except ImportError as error:
            raise MissingPackageError(
                f"latents() needs {error.name or 'safetensors'}; run: pip install 'sdxl-farm[arrays]'"
            ) from None
        return load(await self.bytes())["latents"]

    async def save(self, path: str | Path) -> Path:
        """Save its file; a directory gets it under ``download_name``. Returns where it is."""
        path = Path(path)
        target = path / self.download_name if path.is_dir() else path
        await save(self._connection, self._url_of("file_url"), target)
        return target

    @property
    def _is_latents(self) -> bool:
        return bool(self.data["output_format"] == "latents")

    def _url_of(self, kind: str) -> str:
        url: str | None = self.data[kind]
        if url is None:
            if self.is_removed:
                raise NoPictureError(
                    f"The picture of image {self.index} of job {self.job_id} was removed by retention on "
                    f"{self.data['removed_at'][:10]}; job.retry(removed=True) renders it again."
                )
            why = f" ({self.error})" if self.error else ""
            raise NoPictureError(f"Image {self.index} of job {self.job_id} is {self.state}{why} and has no picture.")
        return url


def _opened(data: bytes) -> "Picture":
    from PIL import Image

    return Image.open(io.BytesIO(data))
