"""Looks at pictures while they are denoised, for people who watch: small, rough and cheap.

They read the latents and leave them as they are: a picture is the same whether or not somebody watches.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import redis
import torch
from PIL import Image

from farm.claims import Claim
from farm.progress import Progress, ProgressBoard
from worker.pictures import preview

logger = logging.getLogger(__name__)

#: Step progress is published no more often than this.
PROGRESS_SECONDS = 0.25
#: Previews are made no more often than this, on each device.
PREVIEW_SECONDS = 0.5
#: Longer edge of a preview, in pixels. Of latents each pixel is 8 of the picture's.
MAX_EDGE = 192
QUALITY = 60


@dataclass(frozen=True, slots=True)
class Seen:
    """The part of a batch in a call: its images' indices, and their rows among the call's latents."""

    claim: Claim
    indices: list[int]
    rows: list[int]


class Reporter:
    """Publishes how far batches are, and what they look like if somebody watches. One per device."""

    def __init__(self, board: ProgressBoard) -> None:
        self._board = board
        self._published_at = 0.0
        self._shown_at = 0.0
        self._watched: set[int] = set()

    def begin(self) -> None:
        """A new call: its first step is published at once, and nobody watches it yet as far as we know."""
        self._published_at = 0.0
        self._watched = set()

    def step(self, progress: Progress, seen: Sequence[Seen], latents: torch.Tensor) -> None:
        """After a denoising step. ``latents`` (n, 4, height / 8, width / 8) are those of all images that are seen.

        A broker that is away costs a picture nothing but its previews.
        """
        now = time.monotonic()
        try:
            if now - self._published_at >= PROGRESS_SECONDS:
                self._published_at = now
                self._watched = {one.claim.job_id for one in seen if self._write(one.claim, progress)}
            watched = [one for one in seen if one.claim.job_id in self._watched]
            if watched and now - self._shown_at >= PREVIEW_SECONDS:
                self._shown_at = now
                for one in watched:
                    shown = zip(one.indices, previews(latents[one.rows]), strict=True)
                    self._board.write_previews(one.claim.job_id, dict(shown))
        except redis.RedisError as error:
            logger.debug("progress not published: %s", error)

    def _write(self, claim: Claim, progress: Progress) -> bool:
        return self._board.write(claim.batch_id, progress, claim.job_id)


def previews(latents: torch.Tensor) -> list[bytes]:
    """Each image as a small JPEG, from latents as noisy as they are in mid-schedule."""
    with torch.inference_mode():
        small = latents.detach()
        edge = max(small.shape[-2:])
        if edge > MAX_EDGE:
            scale = MAX_EDGE / edge
            size = [max(1, round(length * scale)) for length in small.shape[-2:]]
            small = torch.nn.functional.interpolate(small, size=size, mode="area")
        small = small.float().cpu()
        # Schedulers differ in how far noise takes latents beyond the deviation of about 1 that finished ones have.
        deviation = torch.linalg.vector_norm(small, dim=(1, 2, 3), keepdim=True) / small[0].numel() ** 0.5
        small = small / deviation.clamp(min=1)
        # Out-of-range values show as black or white, NaN as anything: the picture itself will be refused.
        return [_jpeg(preview(image)) for image in torch.nan_to_num(small)]


def _jpeg(picture: Image.Image) -> bytes:
    # WebP would be a tenth smaller, and take fifteen times as long, during which the device waits.
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
