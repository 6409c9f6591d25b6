"""Everything that one worker process renders with."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from celery import Celery
from sqlalchemy import Engine

from farm.batch_sizes import BatchSizes
from farm.settings import Settings
from farm.states import Stage
from farm.storage import ObjectStore
from worker.gauges import BusyClock
from worker.inputs import InputCache
from worker.lease import LeaseKeeper
from worker.memory import MemoryLimits
from worker.pipelines import LoadedPipeline
from worker.previews import Reporter
from worker.turns import Turns
from worker.watchdog import Watchdog


@dataclass
class Station:
    """Everything that one worker process renders with."""

    settings: Settings
    engine: Engine
    store: ObjectStore
    celery: Celery
    reporter: Reporter
    worker_id: str
    pipeline: LoadedPipeline
    stages: frozenset[Stage]
    """Those that this worker serves."""
    keeper: LeaseKeeper
    inputs: InputCache
    memory: MemoryLimits
    sizes: BatchSizes
    """How many images a call takes best here."""
    turns: Turns
    """The device: the one thread on which torch loads and computes; fetching, encoding and storing run beside it."""
    clock: BusyClock
    """How much of the time that thread computes."""
    watchdog: Watchdog
    """Notices when that thread hangs."""
    thumbnails: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "thumbnails"))
    """They are made and stored beside their pictures."""
