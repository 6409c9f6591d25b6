"""Pictures that go in by other APIs: taken apart as those mean them, stored as the farm does."""

from io import BytesIO

from PIL import Image, ImageChops, ImageFilter, ImageOps

from dashboard.compatible.bodies import refusal
from dashboard.compatible.errors import UnprocessablePictureError
from dashboard.context import context
from farm.errors import InvalidSubmissionError
from producer.inputs import accept_input, open_picture

#: Alpha below which a pixel counts as transparent.
HALF = 128


def opened(field: str, data: bytes) -> Image.Image:
    """The picture, upright; raises UnprocessablePictureError."""
    try:
        return open_picture(data)
    except InvalidSubmissionError as error:
        raise UnprocessablePictureError(field, error.problems[0].message) from None


def stored(picture: Image.Image) -> str:
    """The name under which a spec speaks of a picture of ours, which is now in the store."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return stored_bytes(buffer.getvalue())


def stored_bytes(data: bytes) -> str:
    """The name under which a spec speaks of a picture that was sent, which is now in the store."""
    farm = context()
    return accept_input(farm.engine, farm.store, data).ref


def transparent_parts(picture: Image.Image) -> Image.Image | None:
    """White where the picture is (more than half) transparent, black elsewhere; None if it is nowhere."""
    if not picture.has_transparency_data:
        return None
    mask = picture.convert("RGBA").getchannel("A").point(lambda alpha: 255 if alpha < HALF else 0)
    return mask if mask.getbbox() is not None else None


def openai_mask(data: bytes, size: tuple[int, int]) -> Image.Image:
    """OpenAI's mask as the farm's: there transparent is painted anew, here white is. Raises InvalidSubmissionError."""
    mask = opened("mask", data)
    if mask.size != size:
        told = f"has {mask.width}x{mask.height} pixels, and the image {size[0]}x{size[1]}; make them equal"
        raise refusal("mask", told)
    parts = transparent_parts(mask)
    if parts is None:
        raise refusal("mask", "has no transparent part; make transparent what is to be painted anew")
    return parts


def web_ui_mask(data: bytes, size: tuple[int, int], *, inverted: bool, blur: float) -> Image.Image:
    """A1111's mask as the farm's: white is painted anew, or where it has transparency what is opaque; blurred."""
    mask = opened("mask", data)
    hidden = transparent_parts(mask)
    grey = ImageChops.invert(hidden) if hidden is not None else mask.convert("L")
    if grey.size != size:
        grey = grey.resize(size, Image.Resampling.LANCZOS)
    if inverted:
        grey = ImageOps.invert(grey)
    return grey.filter(ImageFilter.GaussianBlur(blur)) if blur > 0 else grey
