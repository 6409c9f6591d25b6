"""Pictures as OpenAI's server-sent events: rough ones while they are denoised, then the finished ones."""

import base64
import io
import json
import logging
import time
from collections.abc import Generator, Iterator
from http import HTTPStatus
from typing import Any

from flask import Response, stream_with_context
from PIL import Image

from dashboard.compatible.errors import UnfinishedError, openai_error
from dashboard.compatible.rendering import Rendering, read_picture
from dashboard.context import context
from dashboard.live import KEEP_ALIVE_SECONDS
from dashboard.queries.images import ImageView, get_image
from dashboard.queries.jobs import get_job
from farm.errors import FarmError

logger = logging.getLogger(__name__)

#: Workers publish at most two previews a second.
LOOK_SECONDS = 0.25
#: Values of ``quality`` that OpenAI's models of answers know.
QUALITIES = ("low", "medium", "high", "xhigh", "max")
#: The farm counts no tokens, and the clients' models want some.
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}


class PictureEvents:
    """The events of one request."""

    def __init__(self, rendering: Rendering, kind: str, partial_images: int, output_format: str, quality: str) -> None:
        """``kind`` is what the names of the events begin with."""
        self._rendering, self._kind = rendering, kind
        self._wanted, self._sent = partial_images, 0
        self._format, self._quality = output_format, quality
        self._seen: bytes | None = None

    def response(self) -> Response:
        """The stream. Once its reader is gone, the job is cancelled."""
        response = Response(stream_with_context(self._events()), mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        # nginx would collect the events, and send them in large portions.
        response.headers["X-Accel-Buffering"] = "no"
        return response

    def _events(self) -> Generator[str]:
        ended = False
        try:
            yield from self._until_end()
            state = self._rendering.ended()
            if state is None:
                raise self._rendering.leave()
            ended = True
            for view in self._rendering.images(state):
                yield self._event("completed", view, read_picture(view), usage=USAGE)
        except FarmError as error:
            ended = True
            # What could be told by a status is over: OpenAI's client raises APIError for this.
            logger.info("job %d of a stream: %s", self._rendering.job_id, error)
            status = error.status if isinstance(error, UnfinishedError) else HTTPStatus.BAD_GATEWAY
            yield f"event: error\ndata: {json.dumps(openai_error(status, str(error)))}\n\n"
        finally:
            if not ended:
                self._rendering.leave()

    def _until_end(self) -> Iterator[str]:
        """Partial images, as they come, until the job has ended or nobody waits any more."""
        job_id, spoken = self._rendering.job_id, time.monotonic()
        with context().news.of(job_id) as waiter:
            while True:
                waiter.clear()
                if self._rendering.ended() is not None or not self._rendering.go_on():
                    return
                if (partial := self._partial()) is not None:
                    yield partial
                    spoken = time.monotonic()
                elif time.monotonic() - spoken > KEEP_ALIVE_SECONDS:
                    spoken = time.monotonic()
                    yield ": still here\n\n"
                waiter.wait(LOOK_SECONDS if self._sent < self._wanted else 1.0)

    def _partial(self) -> str | None:
        """The next partial image, when it is due: they are spread over the denoising. Of the first picture alone."""
        if self._sent >= self._wanted:
            return None
        farm, job_id = context(), self._rendering.job_id
        farm.board.watch(job_id)
        data = farm.board.read_preview(job_id, 0)
        if data is None or data == self._seen:
            return None
        due = self._sent / (self._wanted + 1)
        if get_job(farm.engine, farm.board, job_id).progress < due:
            return None
        self._seen = data
        view = get_image(farm.engine, job_id, 0)
        size = view.parameters["width"], view.parameters["height"]
        event = self._event("partial_image", view, _enlarged(data, size, self._format), partial_image_index=self._sent)
        self._sent += 1
        return event

    def _event(self, what: str, view: ImageView, data: bytes, **more: Any) -> str:
        kind = f"{self._kind}.{what}"
        body = {
            "type": kind,
            "b64_json": base64.b64encode(data).decode("ascii"),
            "background": "opaque",
            "created_at": int(time.time()),
            "output_format": self._format,
            "quality": self._quality if self._quality in QUALITIES else "auto",
            "size": f"{view.parameters['width']}x{view.parameters['height']}",
            "seed": view.image.seed,
            **more,
        }
        return f"event: {kind}\ndata: {json.dumps(body)}\n\n"


def _enlarged(preview: bytes, size: tuple[int, int], output_format: str) -> bytes:
    """A preview in the size and format of the picture that it will be."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(preview)).resize(size, Image.Resampling.BICUBIC).save(buffer, output_format.upper())
    return buffer.getvalue()
