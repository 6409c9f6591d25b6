"""Many simulated devices in one process, for `cluster.py`: they claim, beat and commit as workers do, and only sleep.

Each device reads the messages of the broker by the names and in the order of real workers, has as many slots as these,
claims through `farm.claims`, renews its leases through `worker.lease`, and commits through `farm.transitions`. In place
of rendering it waits as long as the cost model says; nothing is stored. What it was told is printed as JSON in the end.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import redis.asyncio
from celery import Celery
from sqlalchemy import Engine

from farm.broker import make_celery, queue_name, ring
from farm.claims import Claim, Vitals, claim
from farm.database import open_database
from farm.models import Worker
from farm.priorities import BULK_MESSAGES, INTERACTIVE_MESSAGE, message_priority
from farm.priorities import class_of as priority_class_of
from farm.settings import Settings, get_settings
from farm.states import Stage
from farm.transitions import FinishedPicture, dismiss_worker, finish_base, finish_batch, register_worker
from worker.lease import LeaseKeeper

#: Of a real worker: a batch in hand, and one that is prepared meanwhile.
SLOTS = 2
#: Statements that are under way at once; more only wait for the same two cores.
THREADS = 6
#: Share of a batch's time that is its base's, where a refiner follows.
BASE_SHARE = 0.8
#: kombu's name of a list: the queue, this, and the priority.
SEPARATOR = "\x06\x16"

Value = TypeVar("Value")


@dataclass
class Tally:
    """What the devices of this process did within the window that is measured."""

    busy_seconds: float = 0.0
    batches: int = 0
    images: Counter[int] = field(default_factory=Counter)
    """By job."""
    empty_claims: int = 0


class Fleet:
    """The devices of this process, and what they share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.settings: Settings = get_settings()
        self.engine: Engine = open_database(self.settings, pool_size=THREADS)
        self.celery: Celery = make_celery(self.settings)
        self.threads = ThreadPoolExecutor(THREADS)
        self.tally = Tally()
        self.opens, self.closes = options.opens, options.opens + options.seconds

    async def do(self, work: Callable[..., Value], *arguments: Any) -> Value:
        """What asks the database, on a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(work, *arguments))

    def spend(self, began: float, ended: float) -> None:
        """Count the part of a time that lies within the window."""
        self.tally.busy_seconds += max(0.0, min(ended, self.closes) - max(began, self.opens))

    async def run(self) -> None:
        """All devices, until the window has closed."""
        devices = [Device(self, number) for number in range(self.options.devices)]
        await asyncio.gather(*(device.arrive() for device in devices))
        # A device that breaks breaks the run: what is measured is the whole fleet.
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(loop) for device in devices for loop in (device.take(group), device.beat())]
            await asyncio.sleep(max(0.0, self.closes - time.time()))
            for loop in loops:
                loop.cancel()
        await asyncio.gather(*(self.do(dismiss_worker, self.engine, device.worker_id) for device in devices))


class Device:
    """One device that only sleeps."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet = fleet
        self._random = random.Random(number)
        self.worker_id = f"simulated/{os.getpid()}-{number}/{secrets.token_hex(3)}"
        self._keeper = LeaseKeeper(fleet.engine, fleet.settings, self.worker_id, Vitals)
        self._turn = asyncio.Lock()
        self._slots = asyncio.Semaphore(SLOTS)
        # An idle device waits for a message as long as it takes.
        self._broker = redis.asyncio.Redis.from_url(fleet.settings.broker_url or "", socket_timeout=None)
        priorities = (INTERACTIVE_MESSAGE, *BULK_MESSAGES)
        names = [queue_name("tiny", stage) for stage in (Stage.REFINER, Stage.BASE)]
        self._lists = [f"{name}{SEPARATOR}{step}" if step else name for step in priorities for name in names]

    async def arrive(self) -> None:
        """Introduce itself, as a worker that serves both stages."""
        worker = Worker(
            id=self.worker_id,
            hostname="simulated",
            process_id=os.getpid(),
            device="simulated",
            device_name="simulated",
            pipeline="tiny",
            stages=[stage.value for stage in Stage],
        )
        await self._fleet.do(register_worker, self._fleet.engine, worker)

    async def beat(self) -> None:
        """Renew the leases, again and again."""
        every = self._fleet.settings.heartbeat_seconds
        await asyncio.sleep(self._random.random() * every)
        while True:
            await self._fleet.do(self._keeper.beat)
            await asyncio.sleep(every)

    async def take(self, batches: asyncio.TaskGroup) -> None:
        """Take a message whenever a slot is free."""
        while True:
            await self._slots.acquire()
            _, message = await self._broker.brpop(self._lists)
            batches.create_task(self._work_on(json.loads(message)))

    async def _work_on(self, message: dict[str, Any]) -> None:
        try:
            # As kombu does: what is taken is written down until it is acknowledged, here at once.
            tag = message["properties"]["delivery_tag"]
            await self._broker.pipeline().zadd("unacked_index", {tag: time.time()}).hset("unacked", tag, "").execute()
            await self._broker.pipeline().zrem("unacked_index", tag).hdel("unacked", tag).execute()
            (batch_id, attempt), *_ = json.loads(base64.b64decode(message["body"]))
            stage = Stage(message["headers"]["task"].removeprefix("farm.render_"))
            held = await self._fleet.do(
                claim, self._fleet.engine, batch_id, attempt, stage, self.worker_id, self._fleet.settings.lease_seconds
            )
            if held is None:
                self._fleet.tally.empty_claims += 1
            else:
                with self._keeper.hold(held):
                    await self._render(held)
        finally:
            self._slots.release()

    async def _render(self, held: Claim) -> None:
        refined = held.parameters.get("refiner_split") is not None
        share = 1.0 if not refined else BASE_SHARE if held.stage is Stage.BASE else 1 - BASE_SHARE
        seconds = self._fleet.options.batch_seconds * share * self._random.uniform(0.8, 1.2)
        async with self._turn:
            began = time.time()
            await asyncio.sleep(seconds)
            ended = time.time()
        self._fleet.spend(began, ended)
        if refined and held.stage is Stage.BASE:
            await self._fleet.do(self._hand_over, held, seconds)
            return
        pictures = [
            FinishedPicture(image.index, f"images/{held.job_id}/{image.index}", f"t/{image.index}", "00", 1)
            for image in held.images
        ]
        await self._fleet.do(finish_batch, self._fleet.engine, held, self.worker_id, pictures, seconds)
        if self._fleet.opens < ended < self._fleet.closes:
            self._fleet.tally.batches += 1
            self._fleet.tally.images[held.job_id] += len(held.images)

    def _hand_over(self, held: Claim, seconds: float) -> None:
        if finish_base(self._fleet.engine, held.batch_id, held.attempt, "latents", "00", seconds):
            priority = message_priority(priority_class_of(50))
            where = (self._fleet.celery, "tiny", Stage.REFINER, held.batch_id, held.attempt)
            ring(*where, refined=True, priority=priority)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--batch-seconds", type=float, required=True)
    parser.add_argument("--opens", type=float, required=True, help="when the window opens, as time.time() tells it")
    parser.add_argument("--seconds", type=float, required=True, help="how long it is open")
    fleet = Fleet(parser.parse_args())
    asyncio.run(fleet.run())
    tally = fleet.tally
    told = {"busy_seconds": tally.busy_seconds, "batches": tally.batches, "empty_claims": tally.empty_claims}
    sys.stdout.write(json.dumps({**told, "images": dict(tally.images)}) + "\n")


if __name__ == "__main__":
    main()
