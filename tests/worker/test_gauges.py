"""How the device is, as heartbeats report it."""

import os

import psutil
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from farm.claims import Answer
from farm.models import Worker
from farm.settings import Settings
from farm.transitions import register_worker
from farm.workers import drain_worker
from worker.gauges import BusyClock, Gauge
from worker.lease import LeaseKeeper


class Time:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("worker.gauges.time.monotonic", lambda: self.now)


def test_the_share_of_time_that_was_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    clock = BusyClock()
    time.now += 2
    assert clock.share() == 0
    time.now += 1
    with clock.running():
        time.now += 1
    time.now += 2
    assert clock.share() == 0.25
    time.now += 1
    with clock.running():
        # In the middle of a long rendering each reading has its own part of it.
        time.now += 3
        assert clock.share() == 0.75
        time.now += 4
        assert clock.share() == 1
        time.now += 1
    time.now += 1
    assert clock.share() == 0.5


def test_on_a_cpu_memory_is_that_of_the_process() -> None:
    vitals = Gauge("cpu", BusyClock()).read()
    assert vitals.memory_used == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert vitals.memory_total == psutil.virtual_memory().total
    assert vitals.utilisation == 0


def test_a_gpu_that_nobody_finds_leaves_its_memory_unknown() -> None:
    vitals = Gauge("cuda:0", BusyClock()).read()
    if not os.path.exists("/dev/nvidia0"):  # noqa: PTH110
        assert (vitals.memory_used, vitals.memory_total, vitals.utilisation) == (None, None, 0)


def test_heartbeats_carry_it_home_and_bring_draining_back(engine: Engine, settings: Settings) -> None:
    worker = Worker(
        id="w", hostname="h", process_id=1, device="cpu", device_name="CPU", pipeline="tiny", stages=["base"]
    )
    register_worker(engine, worker)
    told: list[Answer] = []
    keeper = LeaseKeeper(engine, settings, "w", Gauge("cpu", BusyClock()).read, told.append)
    keeper.beat()
    drain_worker(engine, "w", "ann")
    keeper.beat()
    assert [answer.draining for answer in told] == [False, True]
    with Session(engine) as session:
        seen = session.get_one(Worker, "w")
        assert seen.memory_used is not None
        assert seen.memory_total == psutil.virtual_memory().total
        assert seen.utilisation == 0
