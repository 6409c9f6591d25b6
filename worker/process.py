"""One worker process: pinned to one device, holding one pipeline, consuming the queues of its stages.

Started by the supervisor as ``python -m worker.process``; the environment that pins it is already set.
"""

import argparse
import gc
import logging
import os
import platform
import secrets
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from celery.platforms import SecurityWarning

from farm.batch_sizes import BatchSizes, write_measured
from farm.broker import make_celery, queue_name
from farm.catalog import Catalog
from farm.checkpoints.holdings import held_entries
from farm.claims import Answer, Claim, Vitals
from farm.database import open_database
from farm.keeper import RESTARTS_VARIABLE
from farm.logs import set_up_logging
from farm.models import Worker
from farm.parent import exit_with_keeper
from farm.pictures import stored_picture
from farm.progress import ProgressBoard
from farm.settings import get_settings
from farm.states import Stage
from farm.storage import open_store
from farm.tags import satisfies
from farm.tracing import set_up_tracing
from farm.transitions import dismiss_worker, register_worker
from worker.change import Change, listen_to_signals
from worker.devices import Device, fits, hostname, tags_of
from worker.draining import Tap
from worker.hours import Hours
from worker.inputs import InputCache
from worker.lease import LeaseKeeper
from worker.slots import SLOTS, Transport

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the pipeline, introduce this worker, and consume until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m worker.process", description=__doc__)
    parser.add_argument("--device", required=True, type=Device)
    parser.add_argument("--stages", required=True, type=_stages)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--flexible", default="")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    listen_to_signals()
    exit_with_keeper()
    settings = get_settings()
    set_up_logging(settings)
    set_up_tracing("worker")

    # Celery warns of root; what it fears, pickled messages that run code, is not accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # A million objects come with the libraries and the pipeline, and all of them stay: looking through them for
    # garbage, again and again, takes a fifth of a worker's start, and would stop its threads while it renders.
    gc.disable()
    # Only here, in a process that is pinned and will never fork.
    from worker.compile_cache import CompileCache
    from worker.gauges import BusyClock, Gauge
    from worker.memory import MemoryLimits
    from worker.pipelines import load
    from worker.previews import Reporter
    from worker.station import Station
    from worker.surrender import surrender
    from worker.tasks import register_tasks
    from worker.tuning import TUNING_FILE, Tuning
    from worker.turns import Turns
    from worker.warm_up import warm_up
    from worker.watchdog import Watchdog

    catalog = Catalog.load(settings.catalog, settings.models_directory)
    entry = catalog.get(options.pipeline)
    # The refiner's queue is named first, which is the order in which queues are read.
    stages = [stage for stage in (Stage.REFINER, Stage.BASE) if stage in options.stages]
    turns = Turns()
    pipeline = turns.submit(
        lambda: load(entry, settings.models_directory, options.device.torch_name, frozenset(stages), catalog)
    ).result()
    worker_id = f"{hostname()}/{options.device.name}/{secrets.token_hex(4)}"
    engine = open_database(settings)
    app = make_celery(settings)
    app.conf.update(broker_transport=Transport, worker_concurrency=SLOTS)
    store = open_store(settings)
    memory = MemoryLimits(settings.models_directory / "memory-limits.json", pipeline.fingerprint["device"])
    tuning = Tuning(settings.models_directory / TUNING_FILE, pipeline)
    # What compiles would compile for each size: then an operator has it measured, when he likes.
    if entry.batch_size is None and options.device.name != "cpu" and entry.compile == "none":
        turns.submit(lambda: tuning.complete(pipeline, stages)).result()
    sizes = BatchSizes(entry.batch_size, tuning.measured())
    compiled = CompileCache(store, engine, pipeline) if entry.compile != "none" else None
    was_kept = compiled is not None and compiled.fetch()
    # A CPU's first call is as fast as any other, unless it compiles.
    if compiled is not None or options.device.name != "cpu":
        turns.submit(lambda: warm_up(pipeline, stages, memory, sizes)).result()
    if compiled is not None and not was_kept:
        compiled.share()
    gc.freeze()
    gc.enable()
    clock = BusyClock()
    gauge = Gauge(options.device.torch_name, clock)
    tags = tags_of(options.device, settings)
    hours = Hours.read(settings.worker_hours)

    def queues_for(requirements: Collection[str]) -> list[str]:
        served = ["", *(one for one in sorted(requirements) if satisfies(tags, one))]
        return [queue_name(entry.name, stage, requires) for stage in stages for requires in served]

    holds = held_entries(catalog, settings.models_directory)
    tap = Tap(app, queues_for)
    change = Change(entry.name, stages)

    def read_vitals() -> Vitals:
        return replace(gauge.read(), resting=not hours.include(datetime.now()))

    def follow(answer: Answer) -> None:
        leaves = change.follow(answer.wanted)
        tap.follow(leaves or answer.draining or not hours.include(datetime.now()), answer.requirements)

    def give_up(hung: Sequence[Claim]) -> None:
        surrender(station, hung, f"the device hangs: no step for {settings.hang_seconds:g} seconds")

    keeper = LeaseKeeper(engine, settings, worker_id, read_vitals, follow)
    station = Station(
        settings=settings,
        engine=engine,
        store=store,
        celery=app,
        reporter=Reporter(ProgressBoard(settings)),
        worker_id=worker_id,
        pipeline=pipeline,
        stages=frozenset(stages),
        keeper=keeper,
        turns=turns,
        clock=clock,
        watchdog=Watchdog(settings.hang_seconds, give_up),
        inputs=InputCache(store, partial(stored_picture, engine)),
        memory=memory,
        sizes=sizes,
    )
    register_tasks(app, station)
    register_worker(
        engine,
        Worker(
            id=worker_id,
            hostname=hostname(),
            process_id=os.getpid(),
            device=options.device.name,
            device_name=pipeline.fingerprint.get("device", platform.processor()),
            pipeline=entry.name,
            stages=[stage.value for stage in stages],
            tags=tags,
            flexible=[part for part in options.flexible.split(",") if part],
            holds=holds,
            could_serve=[one.name for one in catalog if f"pipelines.{one.name}" in holds and fits(one, options.device)],
            load_seconds=time.monotonic() - began,
            resting=not hours.include(datetime.now()),
            batch_sizes=write_measured(tuning.measured()) or None,
            restarts=int(os.environ.get(RESTARTS_VARIABLE, "0")),
        ),
    )
    keeper.start()
    station.watchdog.start()
    logger.info("worker %s serves %s of %s", worker_id, " and ".join(stages), entry.name)
    try:
        app.Worker(
            queues=queues_for(()),
            hostname=f"{worker_id.replace('/', '-')}@{hostname()}",
            # Other workers are none of its business: Postgres tells who lives.
            without_gossip=True,
            without_mingle=True,
            quiet=True,
            # Left out, Celery would silence all that is not a warning.
            loglevel=settings.log_level.upper(),
        ).start()
    finally:
        keeper.stop()
        dismiss_worker(engine, worker_id)
        engine.dispose()
    change.execute(["--device", options.device.name, "--flexible", options.flexible])


def _stages(text: str) -> frozenset[Stage]:
    return frozenset(Stage(name) for name in text.split(","))


if __name__ == "__main__":
    main()
