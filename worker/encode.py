"""Pictures to bytes: each with the parameters inside, and a thumbnail."""

import io
import json
from collections.abc import Mapping
from html import escape

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from farm.formats import TEXT_NAME, XMP_NAMESPACE
from farm.spec import ImageParameters
from farm.web_ui import web_ui_text
from worker.pictures import Picture
from worker.png_file import write_png

THUMBNAIL_EDGE = 320
THUMBNAIL_QUALITY = 80
#: What fits into a segment of JPEG, less the names that stand before it.
JPEG_SEGMENT_BYTES = 65_000
_USER_COMMENT = 0x9286
_EXIF_IFD = 0x8769


def encode(picture: Picture, parameters: ImageParameters, provenance: Mapping[str, str]) -> bytes:
    """The picture in the format that its parameters ask for, with everything it was made from inside.

    The full parameters as JSON, with the provenance (job, index, versions, device) beside them: in PNG the text
    ``farm``, in JPEG and WebP the XMP property ``farm:json``, with latents an entry of the metadata. In pictures also
    the form that the web UIs for Stable Diffusion read: in PNG the text ``parameters``, else EXIF's user comment. A
    JPEG's segments end at 64 KiB: what is longer is left out of it.
    """
    document = {"parameters": parameters.model_dump(mode="json"), "provenance": dict(provenance)}
    text = json.dumps(document, ensure_ascii=False)
    if isinstance(picture, torch.Tensor):
        return save({"latents": picture.contiguous()}, {TEXT_NAME: text})
    texts = {TEXT_NAME: text, "parameters": web_ui_text(parameters)}
    if not isinstance(picture, Image.Image):
        return write_png((picture.clip(0, 1) * 65535).round().astype(np.uint16), texts)
    if parameters.output_format == "png":
        return write_png(np.asarray(picture), texts)
    buffer = io.BytesIO()
    limit = JPEG_SEGMENT_BYTES if parameters.output_format == "jpeg" else None
    metadata = _fitting({"xmp": _xmp(text), "exif": _exif(texts["parameters"])}, limit)
    picture.save(buffer, parameters.output_format.upper(), quality=parameters.output_quality, **metadata)
    return buffer.getvalue()


def _xmp(text: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:farm="{XMP_NAMESPACE}" farm:json="{escape(text)}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def _exif(text: str) -> bytes:
    """EXIF with the text as its user comment, in UTF-16 as the web UIs write it."""
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif.tobytes()


def _fitting(metadata: Mapping[str, bytes], limit: int | None) -> dict[str, bytes]:
    return {name: data for name, data in metadata.items() if limit is None or len(data) <= limit}


def encode_thumbnail(picture: Image.Image, edge: int = THUMBNAIL_EDGE) -> bytes:
    """A WebP of at most ``edge`` pixels on its longer edge; smaller pictures keep their size."""
    small = picture.copy()
    small.thumbnail((edge, edge), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    # Method 0 is the fastest; a thumbnail's size hardly depends on it.
    small.save(buffer, "WEBP", quality=THUMBNAIL_QUALITY, method=0)
    return buffer.getvalue()
