"""Benchmarks that need a GPU are alive without one, count what they claim to count, and lose nothing that was measured."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules can be imported."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_gpu_measures_all_of_it_small_on_a_cpu(tmp_path: Path) -> None:
    options = ("plain", "fp8")
    ran = subprocess.run(
        [
            *(sys.executable, str(BENCHMARKS / "gpu.py"), "--small", "--json", "--arrivals"),
            *("--options", *options, "--save", str(tmp_path / "results")),
        ],
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    (found,) = json.loads(ran.stdout)

    ways = {**found["loop"]["ways"], **found["engine"]["ways"], "farm": found["farm"]}
    assert len(ways) == 7
    for way in ways.values():
        assert way["images/s"] > 0
        assert way["warm-up seconds"] > 0
        assert 0 < way["busy share"] <= 1
    assert found["farm"]["seconds to first picture"] > found["farm"]["seconds to start"] > 0
    assert found["engine"]["seconds to load"] > 0

    arrived = found["arrivals"]
    assert arrived["offered images/s"] == pytest.approx(0.9 * found["farm"]["images/s"])
    assert arrived["share of the offline rate"] == pytest.approx(
        arrived["images per busy second"] / found["farm"]["images/s"]
    )
    assert 0 < arrived["median seconds"] <= arrived["p95 seconds"]

    # In float32 batches round otherwise than single pictures, in float16 much is rounded away, equal pictures are neither.
    assert tuple(found["options"]) == options
    assert 90 < found["options"]["plain"]["worst dB"] <= found["options"]["plain"]["median dB"] < 144
    assert 30 < found["plain diffusers, float16"]["median dB"] < 70
    assert found["options"]["fp8"]["failed"].startswith("ConfigurationError: ")

    assert {aim["verdict"] for aim in found["aims"]} == {"not judged"}
    kept = sorted((tmp_path / "results").iterdir())
    assert [path.name for path in kept] == [f"cpu-documentation-{found['date']}.{kind}" for kind in ("json", "md")]
    assert json.loads(kept[0].read_text()) == found
    report = kept[1].read_text()
    assert all(f"| {name} |" in report for name in (*ways, *options, "p95 seconds", "engine / loop"))


def test_a_part_that_fails_takes_no_other_along() -> None:
    code = (
        "import json, os, parts;"
        "dying = lambda: parts.isolated(True, os.abort);"
        "raising = lambda: parts.isolated(True, int, 'many');"
        "living = lambda: {'length': parts.isolated(True, len, 'four')};"
        "print(json.dumps([parts.attempt('part', do) for do in (dying, raising, living)]))"
    )
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout) == [
        {"failed": "its process ended with -6"},
        {"failed": "ValueError: invalid literal for int() with base 10: 'many'"},
        {"length": 4},
    ]


@pytest.mark.usefixtures("benchmarks")
def test_aims_are_judged_by_what_was_measured() -> None:
    from aims import aims

    result = {
        "setting": {"name": "mlperf", "device": "cuda", "size": 1024},
        "loop": {"ways": {"loop, PNG": {"images/s": 0.5}, "batched loop, PNG": {"failed": "OutOfMemoryError: "}}},
        "engine": {
            "ways": {"engine": {"images/s": 1.6, "busy share": 0.96}},
            "matrix rate, TFLOP/s": 700.0,
            "TFLOP per image": 280.0,
        },
        "farm": {"failed": "the worker did not come"},
        "options": {
            "bfloat16": {"dtype": "bfloat16", "quantisation": "none", "images/s": 1.8},
            "bfloat16-compiled": {"dtype": "bfloat16", "quantisation": "none", "images/s": 2.0},
            "fp8": {"dtype": "bfloat16", "quantisation": "fp8", "images/s": 2.6},
            "int8": {"failed": "ConfigurationError: no"},
        },
    }
    found = {aim["aim"]: (aim["figure"], aim["verdict"]) for aim in aims(result)}
    assert found["engine / loop"] == (pytest.approx(3.2), "reached")
    assert found["engine / batched loop"] == (None, "not measured")
    assert found["engine, share of the matrix rate"] == (pytest.approx(0.64), "reached")
    assert found["engine, busy share"] == (0.96, "missed")
    assert found["farm / engine"] == (None, "not measured")
    assert found["fp8 / bfloat16"] == (pytest.approx(1.3), "reached")
    assert found["bfloat16, images/s"] == (2.0, "reached")


@pytest.mark.usefixtures("benchmarks")
def test_errors_are_decibels_of_the_mean_squared_error() -> None:
    from decibels import EQUAL_DECIBELS, decibels

    grey = np.full((8, 8, 3), 0.5, np.float32)
    assert decibels(grey + np.float32(0.1), grey) == pytest.approx(20, abs=1e-4)
    assert decibels(grey, grey) == EQUAL_DECIBELS


@pytest.mark.usefixtures("benchmarks")
def test_requests_come_as_often_as_they_should() -> None:
    from arrivals import due_times

    times = due_times(10_000, rate=4.0)
    assert times == sorted(times) == due_times(10_000, rate=4.0)
    assert times[-1] == pytest.approx(2500, rel=0.03)
    # As many come within the mean interval as of an exponential distribution.
    gaps = np.diff(times)
    assert (gaps < 0.25).mean() == pytest.approx(1 - math.exp(-1), abs=0.02)


@pytest.mark.usefixtures("benchmarks")
def test_operations_are_those_of_the_real_models() -> None:
    from full_size import BASE_UNET, REFINER_UNET, tera_flop, tera_flop_of_decoding

    found = [tera_flop(BASE_UNET, 1024), tera_flop(REFINER_UNET, 1024), tera_flop_of_decoding(1024)]
    assert found == pytest.approx([6.76, 7.29, 10.5], rel=0.005)


def test_a_small_fleet_is_kept_busy_and_shared() -> None:
    options = ("--devices", "4", "--images", "1600", "--seconds", "20", "--batch-seconds", "2", "--json")
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / "cluster.py"), *options], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    (fleet,) = json.loads(ran.stdout)
    assert fleet["devices"] == 4
    # How busy depends on who else uses this machine; that they worked at all, and for whom, does not.
    assert 0.2 < fleet["busy_share"] <= 1.01
    assert fleet["batches_per_second"] > 0.25
    assert fleet["fairness"] > 0.8
    assert fleet["small_jobs"] > 0
    assert fleet["small_wait_batches"] < 6
    assert fleet["cores"]["Postgres"] > 0
    assert fleet["cores"]["drivers"] > 0
