"""Calls of the pipeline: for one batch, or for several of the interactive class that share it."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import chain

import torch
from sqlalchemy.exc import SQLAlchemyError

from farm.claims import Claim, claim_companions
from farm.errors import RenderInterrupted
from farm.faults import reach
from farm.progress import Progress
from farm.spec import ImageParameters
from farm.states import Stage
from farm.storage import get_verified
from farm.tracing import span
from worker import latents, stages
from worker.company import Accompany, Company
from worker.inputs import Inputs
from worker.lease import Lease
from worker.memory import in_parts, kind_of
from worker.pictures import Picture
from worker.previews import Seen
from worker.station import Station
from worker.stumbles import stumble

logger = logging.getLogger(__name__)


@dataclass
class Member:
    """A batch that is ready for its call, and then what came of it."""

    lease: Lease
    images: Sequence[ImageParameters]
    inputs: Inputs
    received: torch.Tensor | None
    """Latents of the base, for the refiner."""
    latents: torch.Tensor | None = None
    """What the base made for the refiner."""
    pictures: list[Picture] = field(default_factory=list)
    seconds: float = 0
    """The device's; of a shared call in proportion to the images."""

    @property
    def rendered(self) -> bool:
        """Whether its call was made."""
        return self.latents is not None or bool(self.pictures)


def prepare(station: Station, lease: Lease, received: torch.Tensor | None = None) -> Member:
    """Fetch what a batch needs: pictures that go in, and latents unless they are given.

    Raises ObjectMissingError or ObjectCorruptError.
    """
    held = lease.claim
    images = _parameters(held)
    with span("fetch"):
        if held.stage is Stage.REFINER and received is None:
            assert held.latents_key is not None  # noqa: S101 - a CHECK constraint says so
            assert held.latents_sha256 is not None  # noqa: S101
            received = latents.unpack(get_verified(station.store, held.latents_key, held.latents_sha256))
        return Member(lease, images, station.inputs.fetch(images), received)


def render(station: Station, member: Member) -> None:
    """Render a batch when its turn comes."""
    with span("render"):
        station.turns.submit(lambda: _call(station, [member]), urgent=member.lease.claim.interactive).result()


def render_with_companions(
    station: Station,
    leader: Member,
    couriers: Executor,
    accompany: Accompany[Member],
    on_turn: Callable[[Sequence[Claim]], None],
) -> None:
    """Render a batch when its turn comes, and with it what then waits of its shape, of whatever job.

    Each companion that was claimed gets a courier, who calls ``accompany``: it prepares its batch, joins, waits for the
    call's end, and does with its part what is to be done. ``on_turn`` is told of them. A call that fails is made
    again for the leader alone, and the companions find that theirs was not made: a broken request breaks no other.
    """

    def turn() -> None:
        claims = _invite(station, leader)
        with Company(claims, couriers, accompany) as company:
            on_turn(claims)
            companions = company.joined()
            if companions:
                try:
                    return _call(station, [leader, *companions])
                except RenderInterrupted:
                    # Nobody wishes for any of it any more: nothing failed.
                    raise
                except Exception:
                    # Whose fault it is shows when each is rendered alone.
                    logger.exception("a shared call failed, each of its batches is rendered alone")
        return _call(station, [leader])

    with span("render"):
        station.turns.submit(turn, urgent=True).result()


def _invite(station: Station, leader: Member) -> list[Claim]:
    """Claim companions, as many as fit into a call."""
    held = leader.lease.claim
    shared = leader.images[0]
    room = station.sizes.of_call(held.stage, shared.width, shared.height) - len(leader.images)
    if room <= 0 or not held.may_share or shared.alone:
        return []
    try:
        claims = claim_companions(station.engine, held, station.worker_id, station.settings.lease_seconds, room)
    except SQLAlchemyError as error:
        logger.warning("batch %d is rendered alone, nobody can be asked along: %s", held.batch_id, error)
        return []
    for companion in claims:
        logger.info("batch %d joins the call of batch %d", companion.batch_id, held.batch_id)
    return claims


def _call(station: Station, members: Sequence[Member]) -> None:
    """Render, in as few parts as fit into the device's memory, and hand out what came of it. On the device's thread.

    Raises RenderInterrupted when no member's batch is wished for any more.
    """
    stage = members[0].lease.claim.stage
    images = [*chain.from_iterable(member.images for member in members)]
    inputs = {name: picture for member in members for name, picture in member.inputs.items()}
    received = [member.received for member in members if member.received is not None]
    noisy = latents.join(received) if received else None
    on_step = _step_reporter(station, members)
    shared = images[0]

    def part(chosen: slice) -> torch.Tensor | list[Picture]:
        stumble()
        if noisy is not None:
            return stages.render_refiner(station.pipeline, images[chosen], inputs, noisy[chosen], on_step)
        if shared.refined:
            return stages.render_base(station.pipeline, images[chosen], inputs, on_step)
        return stages.render_base_only(station.pipeline, images[chosen], inputs, on_step)

    started = time.monotonic()
    station.reporter.begin()
    with station.clock.running(), station.watchdog.watching([member.lease.claim for member in members]):
        best = station.sizes.best(stage, shared.width, shared.height)
        parts = in_parts(len(images), kind_of(shared, stage), station.memory, part, best)
    seconds = time.monotonic() - started

    tensors = [made for made in parts if isinstance(made, torch.Tensor)]
    whole = latents.join(tensors) if tensors else None
    pictures = [*chain.from_iterable(made for made in parts if not isinstance(made, torch.Tensor))]
    begin = 0
    for member in members:
        own = slice(begin, begin + len(member.images))
        begin = own.stop
        member.latents = None if whole is None else whole[own]
        member.pictures = pictures[own]
        member.seconds = seconds * len(member.images) / len(images)


def _step_reporter(station: Station, members: Sequence[Member]) -> stages.OnStep:
    """The step callback: stops the pipeline when no lease stands any more, and publishes how far it is."""
    _check(members)
    # Calls may take images in another order, or a part of them.
    places = {
        id(image): (place, claimed.index)
        for place, member in enumerate(members)
        for image, claimed in zip(member.images, member.lease.claim.images, strict=True)
    }

    def on_step(step: stages.Step) -> None:
        reach("worker.denoising")
        station.watchdog.step()
        _check(members)
        seen = [Seen(member.lease.claim, [], []) for member in members]
        for row, image in enumerate(step.images):
            place, index = places[id(image)]
            seen[place].indices.append(index)
            seen[place].rows.append(row)
        progress = Progress(members[0].lease.claim.stage, step.done, step.of)
        station.reporter.step(progress, [one for one in seen if one.rows], step.latents)

    return on_step


def _check(members: Sequence[Member]) -> None:
    """Raise RenderInterrupted unless somebody's batch may be rendered on."""
    if not any(member.lease.stands() for member in members):
        members[0].lease.check()


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
