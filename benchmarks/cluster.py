"""How a fleet of many devices is kept busy: simulated ones, and everything else of the farm real.

A real producer, Postgres and Valkey; the devices are light drivers (`cluster_driver.py`) that claim, beat and commit
through the code and the queues of real workers and sleep where these render. Four owners of equal weight have jobs from
a thousand to a million images; a fifth submits ten-image jobs all the while. All of it, the drivers too, shares this
machine: the table tells what each part took.

    .venv/bin/python benchmarks/cluster.py
    .venv/bin/python benchmarks/cluster.py --devices 8 --images 2000 --seconds 10 --batch-seconds 0.5
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Engine, func, select, text

import migrations
from farm import embedded
from farm.catalog import Catalog
from farm.database import open_database
from farm.models import Job
from farm.settings import Settings
from producer.intake import Intake, Row
from producer.submit import submit_job

DRIVER = Path(__file__).with_name("cluster_driver.py")
DRIVERS = 2
BATCH = 8
AIM_BUSY, AIM_FAIRNESS, AIM_BATCHES = 0.98, 0.98, 2.0
#: What each owner's jobs have of ``--images``.
OWNERS = {"ana": (1.0,), "bob": (0.3,), "cyd": (0.02,) * 12, "dan": (0.001,) * 250}
REFINED = "bob"
SMALL = 10
#: A fleet arrives and settles for so many batches before it is measured.
SETTLE_BATCHES = 2.5


@dataclass
class Result:
    """What was seen of a fleet."""

    devices: int
    busy_share: float
    """Of the devices' time."""
    batches_per_second: float
    fairness: float
    """Jain's index over the images of the four owners: 1 when all got the same."""
    small_jobs: int
    small_wait_median: float
    """Seconds from the submission of a ten-image job to the first claim of it."""
    small_wait_most: float
    small_wait_batches: float
    """The longest of them, in lengths of a batch."""
    empty_claims: int
    postgres_transactions: float
    """Each second."""
    valkey_commands: float
    producer_mib: float
    cores: dict[str, float]
    """Processor time of each part, in cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 256, 1000])
    parser.add_argument("--batch-seconds", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=90.0, help="of each fleet, after it has settled")
    parser.add_argument("--images", type=int, default=1_000_000, help="of the largest job")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, farm(Path(directory)) as (settings, engine, producer):
        for owner, shares in track([*OWNERS.items()], "submitting", console=Console(stderr=True)):
            for share in shares:
                submit(engine, owner, max(round(options.images * share), BATCH))
        results = [measure(settings, engine, producer, devices, options) for devices in options.devices]
    if options.json:
        sys.stdout.write(json.dumps([asdict(result) for result in results]) + "\n")
    else:
        report(results)


@contextmanager
def farm(directory: Path) -> Iterator[tuple[Settings, Engine, psutil.Process]]:
    """Postgres, Valkey and a producer."""
    with ExitStack() as services:
        settings = Settings(
            data=directory / "data",
            database_url=services.enter_context(embedded.postgres(directory / "postgres")),
            broker_url=services.enter_context(embedded.valkey(directory / "valkey")),
            pipeline="tiny",
        )
        engine = open_database(settings)
        services.callback(engine.dispose)
        # The drivers, their threads and the producer have connections of their own.
        migrations.upgrade(engine)
        log = services.enter_context((directory / "producer.log").open("wb"))
        producer = subprocess.Popen(
            [sys.executable, "-m", "farm.cli", "producer"], env=environment(settings), stdout=log, stderr=log
        )
        try:
            yield settings, engine, psutil.Process(producer.pid)
        finally:
            ended = producer.poll()
            producer.terminate()
            producer.wait()
            if ended is not None:
                raise SystemExit(f"The producer ended: {(directory / 'producer.log').read_text()[-2000:]}")


def environment(settings: Settings) -> dict[str, str]:
    """The settings as a process gets them."""
    given = settings.model_dump(exclude_unset=True)
    return os.environ | {f"FARM_{name.upper()}": str(value) for name, value in given.items()}


def submit(engine: Engine, owner: str, images: int) -> int:
    """A job of so many images."""
    split = 0.8 if owner == REFINED else None
    fields = {"batch_size": BATCH, "seed": 1, "size": "64x64", "steps": 4, "refiner_split": split}
    rows = (Row({"prompt": f"a fox, number {number}"}) for number in range(images))
    return submit_job(engine, Catalog.load(), "tiny", fields, Intake(rows), owner).job_id


def measure(
    settings: Settings, engine: Engine, producer: psutil.Process, devices: int, options: argparse.Namespace
) -> Result:
    """Let so many devices work, and look."""
    opens = time.time() + 5 + devices / 50 + SETTLE_BATCHES * options.batch_seconds
    share = [devices // DRIVERS + (number < devices % DRIVERS) for number in range(DRIVERS)]
    drivers = [
        subprocess.Popen(
            [
                *(sys.executable, str(DRIVER), "--devices", str(count), "--opens", str(opens)),
                *("--seconds", str(options.seconds), "--batch-seconds", str(options.batch_seconds)),
            ],
            env=environment(settings),
            stdout=subprocess.PIPE,
        )
        for count in share
        if count
    ]
    _sleep_until(opens, f"{devices} devices settle")
    parts = {
        "Postgres": [process for process in psutil.process_iter() if process.name() == "postgres"],
        "Valkey": [process for process in psutil.process_iter() if "valkey" in process.name()],
        "producer": [producer],
        "drivers": [psutil.Process(driver.pid) for driver in drivers],
    }
    before, counted = _processor_seconds(parts), _counters(engine, settings)
    small = []
    closes = opens + options.seconds
    count = _small_jobs(devices, options)
    every = options.seconds / count
    for number in track(range(count), f"{devices} devices", console=Console(stderr=True)):
        small.append(submit(engine, "eve", SMALL))
        _sleep_until(min(opens + (number + 1) * every, closes), "")
    _sleep_until(closes, "")
    after, counted_after = _processor_seconds(parts), _counters(engine, settings)
    told: list[dict[str, Any]] = [json.loads(driver.communicate()[0]) for driver in drivers]
    images: Counter[str] = Counter()
    with engine.connect() as connection:
        owners = dict(connection.execute(select(Job.id, Job.owner)).all())
        wait = func.extract("epoch", Job.started_at - Job.created_at)
        waits = sorted(
            float(seconds)
            for seconds in connection.scalars(select(wait).where(Job.id.in_(small), Job.started_at.is_not(None)))
        )
    for one in told:
        for job_id, count in one["images"].items():
            images[owners[int(job_id)]] += count
    shares = [images[owner] for owner in OWNERS]
    busy = sum(one["busy_seconds"] for one in told) / (devices * options.seconds)
    return Result(
        devices=devices,
        busy_share=busy,
        batches_per_second=sum(one["batches"] for one in told) / options.seconds,
        fairness=sum(shares) ** 2 / (len(shares) * sum(count**2 for count in shares)) if any(shares) else 0.0,
        small_jobs=len(waits),
        small_wait_median=statistics.median(waits) if waits else 0.0,
        small_wait_most=max(waits, default=0.0),
        small_wait_batches=max(waits, default=0.0) / options.batch_seconds,
        empty_claims=sum(one["empty_claims"] for one in told),
        postgres_transactions=(counted_after[0] - counted[0]) / options.seconds,
        valkey_commands=(counted_after[1] - counted[1]) / options.seconds,
        producer_mib=producer.memory_info().rss / 2**20,
        cores={name: (after[name] - before[name]) / options.seconds for name in parts},
    )


def _sleep_until(moment: float, why: str) -> None:
    if why:
        Console(stderr=True).print(why, style="dim")
    time.sleep(max(0.0, moment - time.time()))


def _processor_seconds(parts: dict[str, list[psutil.Process]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for name, processes in parts.items():
        seconds[name] = 0.0
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds[name] += times.user + times.system
    return seconds


def _counters(engine: Engine, settings: Settings) -> tuple[int, int]:
    """Transactions of the database and commands of the broker, so far."""
    with engine.connect() as connection:
        query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        transactions = connection.scalar(text(query)) or 0
    with redis.Redis.from_url(settings.broker_url or "") as client:
        return int(transactions), int(client.info("stats")["total_commands_processed"])


def report(results: list[Result]) -> None:
    """As tables."""
    console = Console()
    table = Table("Devices", "Busy", "Batches/s", "Jain index", "Ten-image jobs wait, median", "at most", "in batches")
    for one in results:
        table.add_row(
            str(one.devices),
            _judged(one.busy_share, one.busy_share >= AIM_BUSY, "{:.1%}"),
            f"{one.batches_per_second:.1f}",
            _judged(one.fairness, one.fairness >= AIM_FAIRNESS, "{:.3f}"),
            f"{one.small_wait_median:.1f} s",
            f"{one.small_wait_most:.1f} s",
            _judged(one.small_wait_batches, one.small_wait_batches < AIM_BATCHES, "{:.2f}"),
        )
    console.print(table)
    load = Table(
        "Devices", "Transactions/s", "Broker commands/s", "Producer", *(f"{n}, cores" for n in results[0].cores)
    )
    for one in results:
        cores = (f"{used:.2f}" for used in one.cores.values())
        numbers = (f"{one.postgres_transactions:.0f}", f"{one.valkey_commands:.0f}", f"{one.producer_mib:.0f} MiB")
        load.add_row(str(one.devices), *numbers, *cores)
    console.print(load)


def _small_jobs(devices: int, options: argparse.Namespace) -> int:
    """How many small jobs come: at most half of what their owner's share does, else they wait for each other."""
    batches = devices * options.seconds / options.batch_seconds / (len(OWNERS) + 1)
    return max(1, min(20, int(batches / 2 / math.ceil(SMALL / BATCH))))


def _judged(value: float, good: bool, form: str) -> str:
    return f"[{'green' if good else 'red'}]{form.format(value)}[/]"


if __name__ == "__main__":
    main()
