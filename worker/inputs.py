"""Fetches the pictures that go in, and keeps the latest: thousands of images may share one."""

import io
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from PIL import Image, ImageOps

from farm.keys import input_key
from farm.pictures import StoredPicture
from farm.spec import ImageParameters, job_picture
from farm.storage import ObjectStore, get_verified

Inputs = Mapping[str, Image.Image]
"""Pictures by the names that the parameters use: upright, RGB, as diffusers' ``load_image`` gives them."""

#: Decoded pixels that are kept, 3 bytes each.
MAX_KEPT_PIXELS = 64_000_000


class InputCache:
    """The pictures that were used last."""

    def __init__(self, store: ObjectStore, find: Callable[[int, int], StoredPicture]) -> None:
        """``find`` tells where the picture of an image lies, given its job and index (``farm.pictures``)."""
        self._store, self._find = store, find
        self._kept: OrderedDict[str, Image.Image] = OrderedDict()
        self._lock = Lock()

    def fetch(self, images: Sequence[ImageParameters]) -> Inputs:
        """All pictures that these images need.

        Raises ObjectMissingError or ObjectCorruptError when one is not what was uploaded.
        """
        return {ref: self._get(ref) for image in images for ref in image.inputs}

    def _get(self, ref: str) -> Image.Image:
        with self._lock:
            if ref in self._kept:
                self._kept.move_to_end(ref)
                return self._kept[ref]
        place = job_picture(ref)
        digest = ref.removeprefix("sha256:")
        stored = StoredPicture(input_key(digest), digest) if place is None else self._find(*place)
        picture = decode(get_verified(self._store, *stored))
        with self._lock:
            self._kept[ref] = picture
            while len(self._kept) > 1 and self._pixels() > MAX_KEPT_PIXELS:
                self._kept.popitem(last=False)
        return picture

    def _pixels(self) -> int:
        return sum(kept.width * kept.height for kept in self._kept.values())


def decode(data: bytes) -> Image.Image:
    """A picture as diffusers' ``load_image`` gives it: turned upright by its EXIF data, then RGB."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
