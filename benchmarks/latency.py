"""What the farm adds to the render time of a single interactive image, and what such an image waits under bulk work.

The farm is `farm up` with one worker of both stages: Postgres, Valkey, producer, dashboard, worker and store share the
machine, and nothing else should run on it. Jobs of one image are submitted over HTTP one after the other, on a
connection that stays open; a job is known to have ended when Postgres says so to a listener. From that time the
seconds are taken away that the device computed, as the batch's row has them. Under bulk work what is left is the
waiting for the device: it is compared with the seconds of one bulk call, which nobody can interrupt.

    .venv/bin/python benchmarks/latency.py
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from farms import farm_up
from rich.console import Console
from rich.progress import track
from rich.table import Table

from farm import embedded
from farm.database import NEWS_CHANNEL
from farm.spec import INTERACTIVE_PRIORITY
from producer import Farm

#: Median of what a single image on an idle farm takes beside its rendering.
AIM_SECONDS = 0.050
#: From the answer to a submission to the first claim of any job.
AIM_FIRST_CLAIM_SECONDS = 2.0
SPLIT = 0.8
WARM_UP = 10

_TIMES = """
    SELECT EXTRACT(epoch FROM jobs.started_at), EXTRACT(epoch FROM jobs.finished_at), batches.base_seconds,
        batches.refiner_seconds
    FROM jobs JOIN batches ON batches.job_id = jobs.id WHERE jobs.id = %s
"""


@dataclass(frozen=True, slots=True)
class Request:
    """Where the seconds of one request went."""

    accepted: float
    """From the call to the answer of the API."""
    claimed: float
    """From the answer to the claim."""
    rendered: float
    """The device's, both stages."""
    ended: float
    """From the claim to the commit of the picture, without the rendering: all that worker, store and database do."""
    known: float
    """From that commit's transaction to who listens."""
    added: float
    """All of it from the call on, but for the rendering."""


class Bench:
    """A running farm, and a connection that hears of its news."""

    def __init__(self, url: str, database_url: str, options: argparse.Namespace) -> None:
        self._farm = Farm(url)
        self._options = options
        self._database = psycopg.connect(database_url, autocommit=True)
        self._news = psycopg.connect(database_url, autocommit=True)
        self._news.execute(f"LISTEN {NEWS_CHANNEL}".encode())

    def close(self) -> None:
        """Close its connections."""
        self._farm.close()
        self._database.close()
        self._news.close()

    def submit(self, count: int, *, priority: int, refined: bool, steps: int | None = None) -> Any:
        """Submit a job of so many images."""
        prompts = [f"picture number {number} of a red fox in the snow" for number in range(count)]
        return self._farm.submit(
            prompts,
            seed=0,
            steps=steps or self._options.steps,
            size=f"{self._options.size}x{self._options.size}",
            refiner_split=SPLIT if refined else None,
            priority=priority,
        )

    def request(self, *, refined: bool) -> Request:
        """One interactive image, from the call to the news of its end."""
        called = time.time()
        job_id = self.submit(1, priority=INTERACTIVE_PRIORITY, refined=refined).id
        answered = time.time()
        self.await_end(job_id)
        known = time.time()
        row = self._database.execute(_TIMES, (job_id,)).fetchone()
        assert row is not None
        started, finished, base, refiner = (float(value or 0) for value in row)
        rendered = base + refiner
        return Request(
            accepted=answered - called,
            claimed=started - answered,
            rendered=rendered,
            ended=finished - started - rendered,
            known=known - finished,
            added=known - called - rendered,
        )

    def await_end(self, job_id: int) -> None:
        """Return when a job is known to have ended."""
        while not self._has_ended(job_id):
            self._await_news()

    def first_claim(self, count: int) -> float:
        """Seconds from the answer to the first claim of a job of so many images, which is then cancelled."""
        job = self.submit(count, priority=50, refined=True)
        answered = time.time()
        while (started := self._value("SELECT EXTRACT(epoch FROM started_at) FROM jobs WHERE id = %s", job.id)) is None:
            self._await_news()
        job.cancel()
        return float(started) - answered

    def bulk_call_seconds(self, job_id: int) -> list[float]:
        """The device's seconds of each base call of a job."""
        query = "SELECT base_seconds FROM batches WHERE job_id = %s AND base_seconds IS NOT NULL"
        return [seconds for (seconds,) in self._database.execute(query, (job_id,))]

    def await_rendering(self, job_id: int) -> None:
        """Return when the first batch of a job is committed."""
        while not self.bulk_call_seconds(job_id):
            self._await_news()

    def _await_news(self) -> None:
        """Return when something happened to some job, or nothing for a second."""
        for _ in self._news.notifies(timeout=1, stop_after=1):
            pass

    def _has_ended(self, job_id: int) -> bool:
        state = self._value("SELECT state::text FROM jobs WHERE id = %s", job_id)
        if state in ("failed", "cancelled"):
            raise SystemExit(f"Job {job_id} is {state}.")
        return bool(state == "completed")

    def _value(self, query: str, job_id: int) -> Any:
        row = self._database.execute(query.encode(), (job_id,)).fetchone()
        return None if row is None else row[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=50, help="of each kind, one after the other")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--size", type=int, default=256, help="edge in pixels")
    parser.add_argument("--bulk-images", type=int, default=400, help="of the job that runs meanwhile; 0 leaves it out")
    parser.add_argument("--bulk-steps", type=int, default=20)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 1_000, 100_000], help="images, for the first claim")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with running_farm(options) as bench:
        for refined in (False, True):
            for _ in range(WARM_UP):
                bench.request(refined=refined)
        idle = {
            name: [
                bench.request(refined=refined)
                for _ in track(range(options.requests), name, console=Console(stderr=True))
            ]
            for name, refined in (("base only", False), ("base and refiner", True))
        }
        claims = {count: bench.first_claim(count) for count in options.jobs}
        loaded, calls = under_load(bench, options) if options.bulk_images else ([], [])
    report(idle, claims, loaded, calls, options)


@contextmanager
def running_farm(options: argparse.Namespace) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as directory:
        # Others may look in: the embedded Postgres runs as a user of its own when started by root.
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        with (
            embedded.postgres(data / "postgres") as database_url,
            farm_up(data, FARM_DATABASE_URL=database_url) as url,
        ):
            bench = Bench(url, database_url, options)
            yield bench
            bench.close()


def under_load(bench: Bench, options: argparse.Namespace) -> tuple[list[Request], list[float]]:
    """Requests while a bulk job runs, and the seconds of that job's calls."""
    bulk = bench.submit(options.bulk_images, priority=50, refined=False, steps=options.bulk_steps)
    bench.await_rendering(bulk.id)
    requests = []
    for _ in track(range(options.requests), "under bulk work", console=Console(stderr=True)):
        requests.append(bench.request(refined=False))
        if bulk.refresh().has_ended:
            break
    if not bulk.has_ended:
        bulk.cancel()
    return requests, bench.bulk_call_seconds(bulk.id)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    return statistics.median(values), sorted(values)[min(len(values) - 1, round(len(values) * 0.95))]


def report(
    idle: dict[str, list[Request]],
    claims: dict[int, float],
    loaded: list[Request],
    calls: list[float],
    options: argparse.Namespace,
) -> None:
    parts = ("accepted", "claimed", "rendered", "ended", "known", "added")
    found: dict[str, Any] = {
        name: {part: spread([getattr(request, part) for request in requests]) for part in parts}
        for name, requests in ({**idle, "under bulk work": loaded} if loaded else idle).items()
    }
    call = statistics.median(calls) if calls else None
    document = {"seconds": found, "first_claim_seconds": claims, "bulk_call_seconds": call}
    if options.json:
        print(json.dumps(document))
        return
    table = Table(
        "milliseconds, median (p95)", *found, title=f"One image, {options.size}x{options.size}, {options.steps} steps"
    )
    for part in parts:
        cells = (f"{1000 * found[name][part][0]:.1f} ({1000 * found[name][part][1]:.1f})" for name in found)
        table.add_row(part, *cells)
    Console().print(table)
    print(f"aim: at most {1000 * AIM_SECONDS:.0f} ms added to an image without refiner on an idle farm (median)")
    if call is not None:
        added = found["under bulk work"]["added"]
        print(
            f"under bulk work: {1000 * added[0]:.0f} ms added (p95 {1000 * added[1]:.0f}), a bulk call takes "
            f"{1000 * call:.0f} ms, ratio {added[0] / call:.2f}; aim: at most one call (p95)"
        )
    for count, seconds in claims.items():
        print(f"{count} images: first claim {seconds:.3f} s after the answer; aim: at most {AIM_FIRST_CLAIM_SECONDS} s")


if __name__ == "__main__":
    main()
