"""Single pictures that somebody waits for, arriving at random: what is lost because calls are smaller."""

import math
import random
import statistics
import time
from collections.abc import Sequence
from datetime import datetime

import anyio
from parts import Result, tell
from setting import Setting, prompts
from whole_farm import JOB_SECONDS, RunningFarm

from farm.spec import INTERACTIVE_PRIORITY
from producer import AsyncFarm, AsyncJob
from producer.client.parameters import Parameters

#: How much is asked for, of what the farm can do with full batches.
LOAD = 0.9
SEED = 0
#: Submissions at once. Who waits for a place waits from when the request was due.
PARALLEL = 16


def arrivals(running: RunningFarm, setting: Setting, offline_rate: float) -> Result:
    """Requests at exponential intervals, at ``LOAD`` of the images per second that the farm rendered just before.

    ``images per busy second``: how many the device rendered in a second that it was given to calls, by the rows of
    their batches. ``share of the offline rate``: that over ``offline_rate``. Latencies are from when a request was due
    to its end by the database's clock.
    """
    tell(f"arrivals: {setting.requests} requests")
    due = due_times(setting.requests, LOAD * offline_rate)
    begun, jobs = anyio.run(_requests, running, due)
    unfinished = [job for job in jobs if job.state != "completed"]
    if unfinished:
        raise RuntimeError(f"{len(unfinished)} requests ended otherwise, the first: {dict(unfinished[0].errors)}")
    ended = [datetime.fromisoformat(job.data["finished_at"]).timestamp() - begun for job in jobs]
    latencies = sorted(end - time_due for end, time_due in zip(ended, due, strict=True))
    per_busy_second = len(jobs) / running.device_seconds([job.id for job in jobs])
    return {
        "requests": len(jobs),
        "offered images/s": LOAD * offline_rate,
        "images/s": len(jobs) / (max(ended) - due[0]),
        "images per busy second": per_busy_second,
        "share of the offline rate": per_busy_second / offline_rate,
        "median seconds": statistics.median(latencies),
        "p95 seconds": latencies[math.ceil(0.95 * len(latencies)) - 1],
    }


def due_times(count: int, rate: float) -> list[float]:
    """When requests of a Poisson process come, in seconds from its beginning: the same at each call."""
    drawn, now, times = random.Random(SEED), 0.0, []
    for _ in range(count):
        now += drawn.expovariate(rate)
        times.append(now)
    return times


async def _requests(running: RunningFarm, due: Sequence[float]) -> tuple[float, list[AsyncJob]]:
    """When the first second began, as Unix time, and the jobs, submitted when they are due, after their end."""
    jobs: dict[int, AsyncJob] = {}
    places = anyio.CapacityLimiter(PARALLEL)
    texts = prompts(len(due), "request")

    async with AsyncFarm(running.url) as farm:
        begun, begun_at = anyio.current_time(), time.time()

        async def request(number: int) -> None:
            await anyio.sleep_until(begun + due[number])
            async with places:
                fields: Parameters = {**running.fields, "seed": number, "priority": INTERACTIVE_PRIORITY}
                jobs[number] = await farm.submit([texts[number]], **fields)

        async with anyio.create_task_group() as group:
            for number in range(len(due)):
                group.start_soon(request, number)
        # Nobody looks on while they are rendered: the rows tell when each ended.
        ended = [await jobs[number].wait(progress=False, timeout=JOB_SECONDS) for number in range(len(due))]
    return begun_at, ended
