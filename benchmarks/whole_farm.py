"""The whole farm: `farm up` with one worker, from the submission to the job's end by the database's clock."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from farms import farm_up
from parts import Result, tell
from sampling import sampled
from setting import NAME, WARM_UP, Setting, Work, prompts

from farm import embedded
from producer import Farm
from producer.client.parameters import Parameters

#: A job that takes longer will not end.
JOB_SECONDS = 1800.0
#: Between two looks at what the worker says, which it says anew with each heartbeat.
HEARTBEAT_SECONDS = 2.0


@dataclass(frozen=True)
class RunningFarm:
    """A farm whose worker has rendered."""

    url: str
    database_url: str
    fields: Parameters
    """What every job says."""
    seconds_to_start: float
    """Until its worker was ready."""
    seconds_to_first_picture: float
    """From the same beginning."""

    def device_seconds(self, jobs: Sequence[int]) -> float:
        """What the device was given to the jobs' calls, both stages, as the rows of their batches have it."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(_DEVICE_SECONDS, (list(jobs),)).fetchone()
        assert row is not None
        return float(row[0])


_DEVICE_SECONDS = """
SELECT COALESCE(sum(COALESCE(base_seconds, 0) + COALESCE(refiner_seconds, 0)), 0) FROM batches WHERE job_id = ANY(%s)
"""


@contextmanager
def running_farm(work: Work) -> Iterator[RunningFarm]:
    """A farm, after one picture alone and a batch: for the time of the context."""
    setting, data = work.setting, work.directory / f"farm-{work.setting.name}"
    catalog = work.directory / f"catalog-{setting.name}.toml"
    refiner = "" if setting.split is None else f'refiner = "{work.checkpoint}/refiner"\n'
    catalog.write_text(
        f'[pipelines.{NAME}]\nbase = "{work.checkpoint}/base"\n{refiner}dtype = "{setting.dtype}"\n'
        f"batch_size = {setting.batch_size}\n"
    )
    fields: Parameters = {
        "steps": setting.steps,
        "size": f"{setting.size}x{setting.size}",
        "guidance_scale": setting.guidance,
        "refiner_split": setting.split,
        "watermark": False,
    }
    # Others may look in: the embedded Postgres runs as a user of its own when started by root.
    work.directory.chmod(0o755)
    begun = time.perf_counter()
    with (
        embedded.postgres(data / "postgres") as database_url,
        farm_up(data, setting.torch_device, NAME, FARM_CATALOG=str(catalog), FARM_DATABASE_URL=database_url) as url,
    ):
        started = time.perf_counter() - begun
        with Farm(url) as farm:
            farm.submit(prompts(1, "first"), **fields).wait(timeout=JOB_SECONDS)
            first = time.perf_counter() - begun
            farm.submit(prompts(setting.batch_size, WARM_UP), **fields).wait(timeout=JOB_SECONDS)
        yield RunningFarm(url, database_url, fields, started, first)


def offline(running: RunningFarm, setting: Setting) -> Result:
    """Jobs of many pictures, one after the other.

    ``busy share``: the device's seconds of the jobs' batches over the seconds from submission to end; it counts calls,
    as the engine's does. ``utilisation``: the mean of what the worker reported with its heartbeats, by the HTTP API:
    on a GPU the share of the time in which a kernel ran, by NVML, on a CPU that of calls. None if jobs are too short.
    """
    rates, shares, utilisation = [], [], []
    count = setting.batch_size * setting.farm_batches
    with Farm(running.url) as farm:
        for number in range(setting.runs):
            run = f"run {number + 1}"
            tell(f"farm: {run}")
            with sampled(lambda: _utilisation(farm), HEARTBEAT_SECONDS) as found:
                job = farm.submit(prompts(count, run), **running.fields).wait(timeout=JOB_SECONDS)
            if job.state != "completed":
                raise RuntimeError(f"the job is {job.state}: {dict(job.errors)}")
            begun, ended = (datetime.fromisoformat(job.data[name]) for name in ("created_at", "finished_at"))
            seconds = (ended - begun).total_seconds()
            rates.append(count / seconds)
            shares.append(running.device_seconds([job.id]) / seconds)
            utilisation += found
    return {
        "images/s": statistics.median(rates),
        "busy share": statistics.median(shares),
        "utilisation": statistics.fmean(utilisation) if utilisation else None,
        "seconds to start": running.seconds_to_start,
        "seconds to first picture": running.seconds_to_first_picture,
        "warm-up seconds": running.seconds_to_first_picture - running.seconds_to_start,
    }


def _utilisation(farm: Farm) -> float | None:
    return next((worker["utilisation"] for worker in farm.workers() if worker["alive"]), None)
