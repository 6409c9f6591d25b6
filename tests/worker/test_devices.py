"""Devices: how they are named, pinned and shared."""

import os

import pytest

from farm.catalog import Catalog, Pipeline
from farm.errors import ConfigurationError
from farm.states import Stage
from worker.devices import Device, cpu_threads, discover, parse
from worker.supervisor import supervise


def test_devices_are_parsed() -> None:
    assert parse("cpu, cpu") == [Device("cpu"), Device("cpu")]
    assert parse("cuda:0,cuda:3") == [Device("cuda:0"), Device("cuda:3")]
    assert parse("auto") == discover()


@pytest.mark.parametrize("text", ["", "gpu", "cuda", "cuda:", "cuda:x", "cpu,,cpu", "cpu:0"])
def test_what_is_no_device_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write auto, cpu, cuda:0"):
        parse(text)


def test_a_process_sees_its_own_device_only() -> None:
    assert Device("cuda:3").environment == {"CUDA_VISIBLE_DEVICES": "3"}
    assert Device("cuda:3").torch_name == "cuda:0"
    assert Device("cpu").environment == {"CUDA_VISIBLE_DEVICES": ""}


def test_cpu_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = len(os.sched_getaffinity(0))
    assert cpu_threads(1) == cores
    assert cpu_threads(2 * cores) == 1
    keeper = supervise(parse("cpu,cpu"), [Stage.BASE], Catalog.load().get("tiny"))
    assert [child.environment["OMP_NUM_THREADS"] for child in keeper.children] == [str(max(1, cores // 2))] * 2


def test_the_supervisor_starts_one_process_per_device() -> None:
    keeper = supervise(parse("cuda:0,cuda:1"), [Stage.BASE, Stage.REFINER], Catalog.load().get("sdxl-1.0"))
    for number, child in enumerate(keeper.children):
        assert child.environment["CUDA_VISIBLE_DEVICES"] == str(number)
        assert child.command[-6:] == [
            "--device",
            f"cuda:{number}",
            "--stages",
            "base,refiner",
            "--pipeline",
            "sdxl-1.0",
        ]


def test_a_stage_that_the_pipeline_lacks_is_not_served() -> None:
    alone = Pipeline(name="alone", base="./alone")
    (child,) = supervise(parse("cpu"), [Stage.BASE, Stage.REFINER], alone).children
    assert child.command[child.command.index("--stages") + 1] == "base"
    with pytest.raises(ConfigurationError, match="has no refiner"):
        supervise(parse("cpu"), [Stage.REFINER], alone)
