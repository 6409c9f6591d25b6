"""The two Celery tasks. They read as the path of a picture: claim, render, store, commit."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from celery import Celery, Task
from celery.exceptions import Ignore
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from farm import keys
from farm.broker import TASK_NAMES, ring
from farm.claims import Claim, claim
from farm.errors import ObjectCorruptError, ObjectMissingError, RenderInterrupted, StoreError
from farm.faults import reach
from farm.formats import format_of
from farm.logs import about
from farm.message_keys import HEADER, read_message
from farm.minutes import note_empty_claim
from farm.priorities import INTERACTIVE_MESSAGE
from farm.spec import MAX_BATCH
from farm.states import Stage
from farm.storage import sha256
from farm.tracing import span
from farm.transitions import FinishedPicture, fail_attempt, finish_base, finish_batch, hand_back
from worker import encode, latents
from worker.calls import Member, prepare, render, render_with_companions
from worker.company import Join
from worker.lease import Lease
from worker.pictures import Picture, preview
from worker.slots import in_hand
from worker.station import Station
from worker.surrender import is_device_failure, surrender
from worker.watermark import watermarked

logger = logging.getLogger(__name__)

#: A batch that the store refused waits so long before it is tried again.
STORE_RETRY_SECONDS = 5


OnTurn = Callable[[], object]
"""Called when the device's turn has come for a batch."""


def render_base(station: Station, batch_id: int, attempt: int, on_turn: OnTurn) -> bool:
    """The base stage of a batch: to latents in the store, or to finished pictures where no refiner follows.

    An interactive batch and its companions go straight on to the refiner if this worker serves it. Returns whether
    somebody must ring for the batch's refiner.
    """
    following: dict[int, Claim] = {}
    with ExitStack() as hold:
        base = _stage(station, batch_id, attempt, Stage.BASE, on_turn, following, hold)
        straight_on = base is not None and _goes_straight_on(station, base)
        if base is not None and straight_on:
            # The latents lie in the store, and who claims them first has them: we are only the nearest.
            _stage(station, batch_id, attempt, Stage.REFINER, on_turn, following, hold, base.latents)
    for companion in following.values():
        _ring_for_refiner(station, companion)
    return base is not None and not straight_on


def render_refiner(station: Station, batch_id: int, attempt: int, on_turn: OnTurn) -> None:
    """The refiner stage of a batch: from latents in the store to finished pictures."""
    with ExitStack() as hold:
        _stage(station, batch_id, attempt, Stage.REFINER, on_turn, {}, hold)


def register_tasks(app: Celery, station: Station) -> None:
    """Make the two tasks known to Celery."""

    @app.task(name=TASK_NAMES[Stage.BASE], bind=True)  # type: ignore[untyped-decorator]
    def base(task: Task[..., None], *arguments: object) -> None:
        batch_id, attempt = _rung_for(station, task, arguments)
        with in_hand(task.request.id) as on_turn:
            if not render_base(station, batch_id, attempt, on_turn):
                # The chain ends here: Celery must not ring for a refiner that has nothing to do.
                raise Ignore

    @app.task(name=TASK_NAMES[Stage.REFINER], bind=True)  # type: ignore[untyped-decorator]
    def refiner(task: Task[..., None], *arguments: object) -> None:
        batch_id, attempt = _rung_for(station, task, arguments)
        with in_hand(task.request.id) as on_turn:
            render_refiner(station, batch_id, attempt, on_turn)


def _rung_for(station: Station, task: Task[..., None], arguments: tuple[object, ...]) -> tuple[int, int]:
    """The batch and attempt of a message; raises Ignore, which ends its chain, if it is none of ours."""
    found = read_message(station.settings.message_key, task.name, arguments, task.request.get(HEADER))
    if found is None:
        logger.warning("a message to %s is refused: it is malformed, or not signed with FARM_MESSAGE_KEY", task.name)
        raise Ignore
    return found


def _stage(
    station: Station,
    batch_id: int,
    attempt: int,
    stage: Stage,
    on_turn: OnTurn,
    following: dict[int, Claim],
    hold: ExitStack,
    received: torch.Tensor | None = None,
) -> Member | None:
    """One stage of a batch, and of the companions that join its call: claim, render, store, commit.

    ``received`` are the batch's latents if they are at hand. ``following`` are companions (by their batches) whose
    refiner is next: who joins is taken out, who has ended their base is put in. ``hold`` keeps the device from bulk
    work between the two stages. Returns the batch if its own refiner is next.
    """

    def begin(companions: Sequence[Claim]) -> None:
        hold.close()
        if stage is Stage.BASE and member.images[0].refined and _goes_straight_on(station, member):
            hold.enter_context(station.turns.held())
        on_turn()
        for companion in companions:
            following.pop(companion.batch_id, None)

    with (
        ThreadPoolExecutor(MAX_BATCH, "courier") as couriers,
        _attempt(station, batch_id, attempt, stage) as lease,
    ):
        if lease is None:
            return None
        member = prepare(station, lease, received)
        if lease.claim.interactive:
            render_with_companions(station, member, couriers, partial(_accompany, station, following), begin)
        else:
            on_turn()
            render(station, member)
        if _commit(station, member):
            return member
    return None


def _goes_straight_on(station: Station, member: Member) -> bool:
    return member.lease.claim.interactive and Stage.REFINER in station.stages


def _accompany(station: Station, following: dict[int, Claim], held: Claim, join: Join[Member]) -> None:
    """A stage of a batch that joins the call of another: its own message, and with it the chain, was passed by."""
    with _held(station, held) as lease:
        member = prepare(station, lease)
        join(member)
        if not member.rendered:
            render(station, member)
        if _commit(station, member):
            following[held.batch_id] = held


def _ring_for_refiner(station: Station, held: Claim) -> None:
    try:
        ring(
            station.celery,
            station.pipeline.entry.name,
            Stage.REFINER,
            held.batch_id,
            held.attempt,
            refined=True,
            priority=INTERACTIVE_MESSAGE,
            requires=held.requires,
        )
    except OperationalError as error:
        logger.warning("broker away, batch %d waits for its refiner: %s", held.batch_id, error)


def _commit(station: Station, member: Member) -> bool:
    """Store and record what was rendered. Returns whether the refiner is next."""
    member.lease.check()
    held = member.lease.claim
    if member.latents is not None:
        data = latents.pack(member.latents, [image.index for image in held.images])
        key = keys.latents_key(held.job_id, held.batch_id, held.attempt)
        with span("store"):
            station.store.put(key, data, "application/octet-stream")
        reach("worker.latents_stored")
        if finish_base(station.engine, held.batch_id, held.attempt, key, sha256(data), member.seconds):
            reach("worker.base_committed")
            return True
        _take_away(station, held, [key])
        return False
    _deliver(station, member)
    return False


@contextmanager
def _attempt(station: Station, batch_id: int, attempt: int, stage: Stage) -> Iterator[Lease | None]:
    """Claim a batch and hold it. None when there is nothing to claim."""
    reach("worker.received")
    held = claim(station.engine, batch_id, attempt, stage, station.worker_id, station.settings.lease_seconds)
    if held is None:
        logger.info("batch %d attempt %d: nothing to claim, the message is stale or doubled", batch_id, attempt)
        note_empty_claim(station.engine, station.worker_id, station.pipeline.entry.name, stage)
        yield None
        return
    reach("worker.claimed")
    with _held(station, held) as lease:
        yield lease


@contextmanager
def _held(station: Station, held: Claim) -> Iterator[Lease]:
    """Hold the lease of a claim; record it if the attempt fails."""
    batch_id, attempt = held.batch_id, held.attempt
    limits = station.settings.max_failures, station.settings.max_failed_images
    ids = {"job": held.job_id, "batch": batch_id, "attempt": attempt}
    with (
        about(**ids, stage=held.stage.value),
        span(held.stage.value, held.traceparent, **ids, images=len(held.images), worker=station.worker_id),
        station.keeper.hold(held) as lease,
    ):
        try:
            yield lease
        except RenderInterrupted as interruption:
            logger.info("stopped: %s", interruption)
        except StoreError as error:
            logger.warning("batch %d attempt %d handed back: %s", batch_id, attempt, error)
            hand_back(station.engine, batch_id, attempt, STORE_RETRY_SECONDS)
        except (ObjectMissingError, ObjectCorruptError) as error:
            logger.warning("batch %d attempt %d: latents are lost, base again: %s", batch_id, attempt, error)
            fail_attempt(station.engine, batch_id, attempt, str(error), *limits, latents_lost=True)
        except SQLAlchemyError:
            # The database is away: nothing can be recorded, and the lease brings the batch back.
            logger.exception("batch %d attempt %d is left to its lease", batch_id, attempt)
        except Exception as error:
            # Whatever the model's code raises belongs to this batch; the batch keeps the reason.
            reason = f"{type(error).__name__}: {error}"
            if is_device_failure(error):
                surrender(station, [held], reason)
            outcome = fail_attempt(station.engine, batch_id, attempt, reason, *limits)
            logger.exception("batch %d attempt %d failed: %s", batch_id, attempt, outcome.value)


def _deliver(station: Station, member: Member) -> None:
    """Encode and store a batch's pictures, then commit them; if the attempt has become stale, take them away again."""
    held = member.lease.claim
    finished = []
    for claimed, parameters, picture in zip(held.images, member.images, member.pictures, strict=True):
        provenance = {
            "job": str(held.job_id),
            "index": str(claimed.index),
            **station.pipeline.fingerprint,
            "watermark": "yes" if watermarked(parameters) else "no",
        }
        place = (held.job_id, claimed.index, held.batch_id, held.attempt)
        thumbnail_key = keys.thumbnail_key(*place)
        thumbnail = station.thumbnails.submit(_store_thumbnail, station, thumbnail_key, picture)
        with span("encode", index=claimed.index):
            data = encode.encode(picture, parameters, provenance)
        delivered = format_of(parameters.output_format)
        image_key = keys.image_key(*place, delivered.ending)
        with span("store", index=claimed.index):
            station.store.put(image_key, data, delivered.media_type)
            thumbnail.result()
        reach("worker.picture_stored")
        finished.append(FinishedPicture(claimed.index, image_key, thumbnail_key, sha256(data), len(data)))
    reach("worker.pictures_stored")
    with span("commit"):
        committed = finish_batch(station.engine, held, station.worker_id, finished, member.seconds)
    reach("worker.batch_committed")
    if not committed:
        _take_away(station, held, [key for one in finished for key in (one.image_key, one.thumbnail_key)])


def _take_away(station: Station, held: Claim, written: Sequence[str]) -> None:
    """Remove what an attempt wrote that came too late: whoever has the batch now writes elsewhere."""
    logger.info("batch %d attempt %d came too late, what it wrote goes", held.batch_id, held.attempt)
    station.store.delete_many(written)


def _store_thumbnail(station: Station, key: str, picture: Picture) -> None:
    station.store.put(key, encode.encode_thumbnail(preview(picture)), "image/webp")
