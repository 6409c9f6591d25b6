"""The two Celery tasks. They read as the path of a picture: claim, render, store, commit."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from celery import Celery
from celery.exceptions import Ignore
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from farm import keys
from farm.broker import TASK_NAMES
from farm.errors import ObjectCorruptError, ObjectMissingError, RenderInterrupted, StoreError
from farm.formats import format_of
from farm.progress import Progress
from farm.settings import Settings
from farm.spec import ImageParameters
from farm.states import Stage
from farm.storage import ObjectStore, get_verified, sha256
from farm.transitions import (
    Claim,
    FinishedPicture,
    claim,
    fail_attempt,
    finish_base,
    finish_batch,
    hand_back,
)
from worker import encode, latents, stages
from worker.gauges import BusyClock
from worker.inputs import InputCache
from worker.lease import Lease, LeaseKeeper
from worker.memory import MemoryLimits, in_parts
from worker.pictures import Picture, preview
from worker.pipelines import LoadedPipeline
from worker.previews import Reporter
from worker.watermark import watermarked

logger = logging.getLogger(__name__)

Rendered = TypeVar("Rendered")

#: A batch that the store refused waits so long before it is tried again.
STORE_RETRY_SECONDS = 5


@dataclass
class Station:
    """Everything that one worker process renders with."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    reporter: Reporter
    worker_id: str
    pipeline: LoadedPipeline
    keeper: LeaseKeeper
    inputs: InputCache
    memory: MemoryLimits
    device: ThreadPoolExecutor
    """The one thread on which torch loads and computes; fetching, encoding and storing run beside it."""
    clock: BusyClock
    """How much of the time that thread computes."""


def render_base(station: Station, batch_id: int, attempt: int) -> bool:
    """The base stage of a batch: to latents in the store, or to finished pictures where no refiner follows.

    Returns whether the refiner is next.
    """
    with _attempt(station, batch_id, attempt, Stage.BASE) as lease:
        if lease is None:
            return False
        images = _parameters(lease.claim)
        inputs = station.inputs.fetch(images)
        on_step = _step_reporter(station, lease, images)
        if not images[0].refined:
            parts, seconds = _render(
                station,
                Stage.BASE,
                images,
                lambda part: stages.render_base_only(station.pipeline, images[part], inputs, on_step),
            )
            _deliver(station, lease.claim, images, [*chain.from_iterable(parts)], seconds)
            return False
        rendered, seconds = _render(
            station,
            Stage.BASE,
            images,
            lambda part: stages.render_base(station.pipeline, images[part], inputs, on_step),
        )
        data = latents.pack(latents.join(rendered), [image.index for image in lease.claim.images])
        key = keys.latents_key(lease.claim.job_id, batch_id, attempt)
        station.store.put(key, data, "application/octet-stream")
        return finish_base(station.engine, batch_id, attempt, key, sha256(data), seconds)
    return False


def render_refiner(station: Station, batch_id: int, attempt: int) -> None:
    """The refiner stage of a batch: from latents in the store to finished pictures."""
    with _attempt(station, batch_id, attempt, Stage.REFINER) as lease:
        if lease is None:
            return
        held = lease.claim
        images = _parameters(held)
        assert held.latents_key is not None  # noqa: S101 - a CHECK constraint says so
        assert held.latents_sha256 is not None  # noqa: S101
        received = latents.unpack(get_verified(station.store, held.latents_key, held.latents_sha256))
        inputs = station.inputs.fetch(images)
        on_step = _step_reporter(station, lease, images)
        parts, seconds = _render(
            station,
            Stage.REFINER,
            images,
            lambda part: stages.render_refiner(station.pipeline, images[part], inputs, received[part], on_step),
        )
        if _deliver(station, held, images, [*chain.from_iterable(parts)], seconds):
            station.store.delete(held.latents_key)


def register_tasks(app: Celery, station: Station) -> None:
    """Make the two tasks known to Celery."""

    @app.task(name=TASK_NAMES[Stage.BASE])  # type: ignore[untyped-decorator]
    def base(batch_id: int, attempt: int) -> None:
        if not render_base(station, batch_id, attempt):
            # The chain ends here: Celery must not ring for a refiner that has nothing to do.
            raise Ignore

    @app.task(name=TASK_NAMES[Stage.REFINER])  # type: ignore[untyped-decorator]
    def refiner(batch_id: int, attempt: int) -> None:
        render_refiner(station, batch_id, attempt)


@contextmanager
def _attempt(station: Station, batch_id: int, attempt: int, stage: Stage) -> Iterator[Lease | None]:
    """Claim a batch and hold its lease; record it if the attempt fails. None when there is nothing to claim."""
    held = claim(station.engine, batch_id, attempt, stage, station.worker_id, station.settings.lease_seconds)
    if held is None:
        logger.info("batch %d attempt %d: nothing to claim, the message is stale or doubled", batch_id, attempt)
        yield None
        return
    with station.keeper.hold(held) as lease:
        try:
            yield lease
        except RenderInterrupted as interruption:
            logger.info("stopped: %s", interruption)
        except StoreError as error:
            logger.warning("batch %d attempt %d handed back: %s", batch_id, attempt, error)
            hand_back(station.engine, batch_id, attempt, STORE_RETRY_SECONDS)
        except (ObjectMissingError, ObjectCorruptError) as error:
            logger.warning("batch %d attempt %d: latents are lost, base again: %s", batch_id, attempt, error)
            fail_attempt(
                station.engine, batch_id, attempt, str(error), station.settings.max_failures, latents_lost=True
            )
        except SQLAlchemyError:
            # The database is away: nothing can be recorded, and the lease brings the batch back.
            logger.exception("batch %d attempt %d is left to its lease", batch_id, attempt)
        except Exception as error:
            # Whatever the model's code raises belongs to this batch; the batch keeps the reason.
            reason = f"{type(error).__name__}: {error}"
            outcome = fail_attempt(station.engine, batch_id, attempt, reason, station.settings.max_failures)
            logger.exception("batch %d attempt %d failed: %s", batch_id, attempt, outcome.value)


def _render(
    station: Station, stage: Stage, images: Sequence[ImageParameters], render: Callable[[slice], Rendered]
) -> tuple[list[Rendered], float]:
    """Render a batch on the device's thread, when its turn comes, in as few parts as fit into its memory.

    Returns the parts and the device's seconds.
    """
    shared = images[0]
    kind = f"{shared.pipeline}, {stage.value}, {shared.mode}, {shared.width}x{shared.height}"
    if stage is Stage.BASE and shared.controlnet:
        kind += f", {len(shared.controlnet)} ControlNets"

    def timed() -> tuple[list[Rendered], float]:
        started = time.monotonic()
        station.reporter.begin()
        with station.clock.running():
            return in_parts(len(images), kind, station.memory, render), time.monotonic() - started

    return station.device.submit(timed).result()


def _parameters(held: Claim) -> list[ImageParameters]:
    return [
        ImageParameters.model_validate(
            {
                **held.parameters,
                **(image.parameters or {}),
                "prompt": image.prompt,
                "negative_prompt": image.negative_prompt,
                "seed": image.seed,
            }
        )
        for image in held.images
    ]


def _step_reporter(station: Station, lease: Lease, images: Sequence[ImageParameters]) -> stages.OnStep:
    """The step callback: stops the pipeline when the lease says so, and publishes how far it is."""
    lease.check()
    held = lease.claim
    # Calls may take images in another order, or a part of them.
    indices = {id(image): claimed.index for image, claimed in zip(images, held.images, strict=True)}

    def on_step(step: stages.Step) -> None:
        lease.check()
        progress = Progress(held.stage, step.done, step.of)
        station.reporter.step(held, progress, [indices[id(image)] for image in step.images], step.latents)

    return on_step


def _deliver(
    station: Station, held: Claim, images: Sequence[ImageParameters], pictures: Sequence[Picture], seconds: float
) -> bool:
    """Encode and store a batch's pictures, then commit them. False if the attempt had become stale."""
    finished = []
    for claimed, parameters, picture in zip(held.images, images, pictures, strict=True):
        provenance = {
            "job": str(held.job_id),
            "index": str(claimed.index),
            **station.pipeline.fingerprint,
            "watermark": "yes" if watermarked(parameters) else "no",
        }
        data = encode.encode(picture, parameters, provenance)
        delivered = format_of(parameters.output_format)
        image_key = keys.image_key(held.job_id, claimed.index, delivered.ending)
        thumbnail_key = keys.thumbnail_key(held.job_id, claimed.index)
        station.store.put(image_key, data, delivered.media_type)
        station.store.put(thumbnail_key, encode.encode_thumbnail(preview(picture)), "image/webp")
        finished.append(FinishedPicture(claimed.index, image_key, thumbnail_key, sha256(data)))
    return finish_batch(station.engine, held, station.worker_id, finished, seconds)
