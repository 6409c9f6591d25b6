"""The forms in which pictures are delivered, and how to read from one what it was made from."""

import io
import json
import re
from dataclasses import dataclass
from html import unescape
from pathlib import PurePosixPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from farm.errors import FarmError

#: Name of the text in a PNG, and of the entry in a safetensors file, that holds the farm's JSON.
TEXT_NAME = "farm"
#: Namespace of the XMP property that holds it in JPEG and WebP.
XMP_NAMESPACE = "https://sdxl-farm.org/xmp/1/"
#: More than any picture of a farm has; decoding larger ones would cost memory for nothing.
MAX_PIXELS = 64_000_000
_XMP = re.compile(rb'farm:json="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Format:
    """A form of delivery."""

    ending: str
    media_type: str
    name: str
    """What people call it."""
    shown: bool = True
    """Whether browsers show it."""


FORMATS = {
    "png": Format("png", "image/png", "PNG"),
    "png16": Format("png", "image/png", "PNG"),
    "webp": Format("webp", "image/webp", "WebP"),
    "jpeg": Format("jpg", "image/jpeg", "JPEG"),
    "latents": Format("safetensors", "application/octet-stream", "latents", shown=False),
}


class NoParametersError(FarmError):
    """A file that does not tell what it was made from."""


def format_of(output_format: str | None) -> Format:
    """The format that an image's parameters ask for."""
    return FORMATS[output_format or "png"]


def format_of_key(key: str) -> Format:
    """The format of an object, by its key's ending."""
    ending = PurePosixPath(key).suffix.removeprefix(".")
    return next(known for known in FORMATS.values() if known.ending == ending)


def read_parameters(data: bytes) -> dict[str, Any]:
    """The farm's JSON in a delivered picture: ``parameters``, from which it can be rendered again, and ``provenance``.

    Raises NoParametersError for any other file.
    """
    text = _latents_text(data) or _picture_text(data)
    if text is None:
        raise NoParametersError("This file does not say what it was made from: no picture of a farm, or saved anew.")
    try:
        document: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise NoParametersError("This file does not say what it was made from: what it holds is no JSON.") from None
    if not isinstance(document, dict):
        raise NoParametersError("This file does not say what it was made from: what it holds is no object.")
    return document


def _latents_text(data: bytes) -> str | None:
    """From a file of safetensors: it begins with its header's length (8 bytes) and the header."""
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" or 8 + length > len(data):
        return None
    try:
        text = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(TEXT_NAME)
    except (ValueError, AttributeError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def _picture_text(data: bytes) -> str | None:
    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        if picture.width * picture.height > MAX_PIXELS:
            return None
        # PNG keeps text after the pixels too.
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    text = getattr(picture, "text", {}).get(TEXT_NAME)
    found = _XMP.search(picture.info.get("xmp", b"")) if text is None else None
    return unescape(found[1].decode("utf-8", "replace")) if found else text
