"""A farm that works while faults of all kinds strike every few seconds; in the end nothing may be lost.

Several submitters hand it jobs over HTTP while its processes are killed and stopped, its services cut off, restarted and
emptied, its store answers wrongly and its device fails. When all has ended, the auditor compares rows, objects and
hashes, and every picture is rendered once more, in peace: pixel by pixel both must be the same.

    make chaos CHAOS="--images 20000 --seconds 3600"
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
from doors import Door, Services, Trouble, own_services, refuse, wrong
from mishaps import FEW, arm, children, farm_of_faults, go_on, stopped_processes
from PIL import Image as Pillow
from rich.console import Console
from rich.progress import Progress
from running import RunningFarm, wait_until
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from farm.database import open_database
from farm.errors import FarmError, InvalidSubmissionError
from farm.models import Image, Job
from farm.storage import ObjectStore, open_store
from producer import Farm
from producer.audit import Tally, audit

SUBMITTERS = 4
#: A fault that lasts, lasts so long; the lease of this farm is 3 s.
LASTS = (0.5, 5.0)
#: A device that fails oftener rests for longer than a short run has.
MOST_LOST = 2
KEEPING = ("--save", "", "--appendonly", "yes")
POINTS = (
    *("worker.received", "worker.claimed", "worker.denoising", "worker.latents_stored", "worker.base_committed"),
    *("worker.picture_stored", "worker.pictures_stored", "worker.batch_committed"),
    *("dispatch.queued", "dispatch.rang", "submit.written", "submit.committed"),
)


@dataclass(frozen=True)
class Course:
    """What is rendered, and how hard it is made."""

    images: int
    seconds: float
    """After which no further fault strikes."""
    every: float
    """Seconds between two faults, on the average."""
    seed: int


@dataclass
class Result:
    """What a run came to."""

    images: int
    seconds: float
    faults: dict[str, int]
    """How often each was done, or set for whoever reaches its point next."""
    completed: int = 0
    failed: int = 0
    contradictions: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    """Pictures that are not those of a run in peace."""

    @property
    def is_well(self) -> bool:
        """Whether every promise was kept."""
        return self.completed == self.images and not (self.failed or self.contradictions or self.different)


class Chaos:
    """Does harm, again and again."""

    def __init__(self, farm: RunningFarm, services: Services, seed: int, every: float) -> None:
        """A fault each ``every`` seconds, on the average."""
        self.farm, self.services, self.random, self.every = farm, services, random.Random(seed), every
        self.struck: Counter[str] = Counter()
        self.harms: dict[str, Callable[[], None]] = {
            "worker killed": self.kill_worker,
            "worker stopped for a while": self.stop_worker,
            "producer killed": lambda: self.kill("producer"),
            "dashboard killed": lambda: self.kill("dashboard"),
            "process killed at a point of its way": lambda: arm(self.farm, self.random.choice(POINTS)),
            "process stopped at a point of its way": lambda: arm(self.farm, self.random.choice(POINTS[:8]), "stop"),
            "device out of memory": lambda: arm(self.farm, "worker.call", "out of memory"),
            "device lost": self.lose_device,
            "picture of NaN": lambda: arm(self.farm, "worker.made", "nan"),
            "database cut off": lambda: self.cut(self.services.to_postgres),
            "database connections killed": self.kill_connections,
            "database crashed": self.crash_database,
            "broker cut off": lambda: self.cut(self.services.to_valkey),
            "broker flushed": lambda: self.services.valkey.client.flushall() and None,
            "broker restarted with its data": lambda: self.restart_broker(keeps=True),
            "broker restarted without": lambda: self.restart_broker(keeps=False),
            "store cut off": lambda: self.cut(self.services.to_store),
            "store in trouble": self.trouble_store,
        }

    def run(self, stop: threading.Event) -> None:
        """Until told to stop; what was cut off or stopped is as before then."""
        while not stop.wait(self.random.uniform(0.2, 1.8) * self.every):
            name = self.random.choice([*self.harms])
            self.harms[name]()
            self.struck[name] += 1
            self.keep_up()
        for file in (self.farm.settings.faults or Path()).iterdir():
            file.unlink(missing_ok=True)
        self.services.store.troubles = []
        for process in stopped_processes(self.farm):
            go_on(process)
        self.keep_up()

    def keep_up(self) -> None:
        """What an operator's supervisor does: start again what died. Workers have their own."""
        for stopped in stopped_processes(self.farm):
            if self.random.random() < 0.5:
                go_on(stopped)
        for part in ("producer", "dashboard"):
            if not any(part in one.args and one.poll() is None for one in self.farm.processes):
                self.farm.start(part)

    def lasting(self) -> None:
        time.sleep(self.random.uniform(*LASTS))

    def workers(self) -> list[psutil.Process]:
        supervisors = [one for one in self.farm.processes if "worker" in one.args and one.poll() is None]
        return [child for one in supervisors for child in children(one)]

    def kill_worker(self) -> None:
        if workers := self.workers():
            self.random.choice(workers).kill()

    def stop_worker(self) -> None:
        if workers := self.workers():
            chosen = self.random.choice(workers)
            with suppress(psutil.NoSuchProcess):
                chosen.suspend()
                self.lasting()
                chosen.resume()

    def kill(self, part: str) -> None:
        living = [one for one in self.farm.processes if part in one.args and one.poll() is None]
        if living:
            chosen = self.random.choice(living)
            chosen.send_signal(signal.SIGKILL)
            chosen.wait()

    def cut(self, door: Door) -> None:
        door.shut()
        self.lasting()
        door.open()

    def kill_connections(self) -> None:
        killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        self.services.postgres.execute(killed)

    def crash_database(self) -> None:
        self.services.postgres.stop("immediate")
        self.lasting()
        self.services.postgres.start()

    def restart_broker(self, *, keeps: bool) -> None:
        self.services.valkey.stop()
        if not keeps:
            shutil.rmtree(self.services.directory / "appendonlydir", ignore_errors=True)
        self.services.valkey.start(*KEEPING)

    def trouble_store(self) -> None:
        method, prefix, answer = self.random.choice(
            [
                ("PUT", "images/", refuse("500 Internal Server Error", "InternalError")),
                ("PUT", "latents/", refuse("503 Slow Down", "SlowDown")),
                ("PUT", "thumbnails/", refuse("403 Forbidden", "ExpiredToken")),
                ("GET", "latents/", wrong(lambda data: data[:-1] + b"?")),
                ("GET", "latents/", wrong(lambda data: data[: len(data) // 2], honest_length=False)),
            ]
        )
        self.services.store.troubles = [Trouble(method, prefix, answer, self.random.randint(1, 10))]

    def lose_device(self) -> None:
        arm(self.farm, "worker.call", "lost")
        if self.struck["device lost"] + 1 >= MOST_LOST:
            del self.harms["device lost"]


def submissions(images: int, seed: int) -> list[dict[str, Any]]:
    """What is submitted, in all: jobs of one image to a hundred."""
    chosen, jobs = random.Random(seed), []
    while images:
        count = min(images, chosen.choice([1, 4, 20, 100]))
        images -= count
        number = len(jobs)
        jobs.append(
            {
                "prompts": [f"picture {index} of job {number}" for index in range(count)],
                "name": f"chaos {number}",
                **FEW,
                "seed": number * 1000,
                # Alone in its call a picture is the same wherever, and however often, it is rendered.
                "batch_size": 1,
                "steps": chosen.choice([2, 4]),
                # One pass a step: it is the farm that is tried here.
                "guidance_scale": 1.0,
                "refiner_split": chosen.choice([0.5, None]),
                "priority": chosen.choice([20, 50, 80]),
            }
        )
    return jobs


def hand_in(farm: RunningFarm, jobs: list[dict[str, Any]]) -> None:
    """Submit these one after the other, as a patient program does: until each is accepted."""
    for job in jobs:
        fields = dict(job)
        prompts = fields.pop("prompts")
        key = f"chaos-{fields['name']}"
        while True:
            try:
                with Farm(farm.url, farm.token) as client:
                    client.submit(prompts, **fields, idempotency_key=key)
                break
            except InvalidSubmissionError:
                raise
            except (FarmError, httpx.HTTPError) as error:
                # Nobody answers, or somebody who cannot help it: the same submission is tried again.
                print(f"submission of {key} to be repeated: {type(error).__name__}: {error}", file=sys.stderr)
                time.sleep(1)


def count_ended(engine: Engine) -> tuple[int, int]:
    """Images that are completed, and that failed."""
    with engine.connect() as connection:
        rows = connection.execute(select(Job.images_completed, Job.images_failed)).all()
    return sum(row[0] for row in rows), sum(row[1] for row in rows)


def pixels(engine: Engine, store: ObjectStore) -> dict[tuple[str, int], str]:
    """A hash of each picture's pixels, by its job's name and its index."""
    query = select(Job.name, Image.index, Image.image_key).join(Job, Job.id == Image.job_id)
    with engine.connect() as connection:
        rows = connection.execute(query.where(Image.image_key.is_not(None))).all()
    return {
        (name, index): hashlib.sha256(Pillow.open(io.BytesIO(store.get(key))).tobytes()).hexdigest()
        for name, index, key in rows
    }


def render_all(
    services: Services, models: Path, course: Course, console: Console, *, in_peace: bool
) -> tuple[Result, dict[tuple[str, int], str]]:
    """One run, with faults or in peace."""
    jobs, images = submissions(course.images, course.seed), course.images
    logs = services.directory / "logs"
    logs.mkdir()
    with (
        farm_of_faults(services, logs, models, ["--devices", "cpu,cpu"], max_failures=1000) as farm,
        Progress(console=console) as progress,
    ):
        if not in_peace:
            farm.start("producer")
        bar = progress.add_task("in peace" if in_peace else "chaos", total=images)
        engine = open_database(farm.settings)
        chaos, stop = Chaos(farm, services, course.seed, course.every), threading.Event()
        people = [threading.Thread(target=hand_in, args=(farm, jobs[n::SUBMITTERS])) for n in range(SUBMITTERS)]
        trouble = threading.Thread(target=chaos.run, args=(stop,))
        began = time.monotonic()
        for thread in (*people, *(() if in_peace else (trouble,))):
            thread.start()
        completed = failed = 0
        while (completed + failed < images or any(one.is_alive() for one in people)) and not stop.wait(0.5):
            # While the database is away nobody can be asked.
            with suppress(SQLAlchemyError):
                completed, failed = count_ended(engine)
                progress.update(bar, completed=completed + failed)
            if not in_peace and time.monotonic() - began > course.seconds:
                break
        stop.set()
        if not in_peace:
            trouble.join()
        for thread in people:
            thread.join()

        def all_ended() -> bool:
            nonlocal completed, failed
            completed, failed = count_ended(engine)
            progress.update(bar, completed=completed + failed)
            return completed + failed >= images

        wait_until(all_ended, "all images to end", max(600.0, images * 2.0))
        result = Result(images, time.monotonic() - began, dict(chaos.struck), completed, failed)
        store = open_store(farm.settings)
        deadline = time.monotonic() + 60
        while found := [*audit(engine, store, Tally(), hashes=True, young=timedelta(0))]:
            if time.monotonic() > deadline:
                result.contradictions = [f"{one.rule}: job {one.job_id}, {one.what}" for one in found]
                break
            time.sleep(1)
        seen = pixels(engine, store)
        engine.dispose()
    return result, seen


def run(course: Course, models: Path | None = None) -> Result:
    """A run with faults, then one in peace, compared."""
    console = Console(stderr=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        models = models or Path(name)
        with own_services(KEEPING) as services:
            result, seen = render_all(services, models, course, console, in_peace=False)
        print(f"with faults: {result}; the same in peace, to compare", file=sys.stderr, flush=True)
        with own_services() as services:
            _, expected = render_all(services, models, course, console, in_peace=True)
    result.different = [
        f"{name}, image {index}" for (name, index), one in expected.items() if seen.get((name, index)) != one
    ]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="after which no further fault strikes")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two faults, on the average")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    course = Course(**vars(parser.parse_args()))
    print(f"seed {course.seed}", file=sys.stderr)
    result = run(course)
    print(json.dumps(asdict(result), indent=1))
    sys.exit(0 if result.is_well else 1)


if __name__ == "__main__":
    main()
