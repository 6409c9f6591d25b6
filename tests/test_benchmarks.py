"""Benchmarks that need a GPU are alive without one, and count what they claim to count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_gpu_runs_small_on_a_cpu() -> None:
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--small", "--json"], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout)
    rates = [one["images/s"] for part in ("loop", "engine") for one in found[part].values()]
    assert len(rates) == 6
    assert min(*rates, found["farm"]["images/s"], found["farm"]["seconds to first picture"]) > 0


def test_operations_are_those_of_the_real_models() -> None:
    code = (
        "from full_size import *;"
        "print(tera_flop(BASE_UNET, 1024), tera_flop(REFINER_UNET, 1024), tera_flop_of_decoding(1024))"
    )
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert [float(number) for number in ran.stdout.split()] == pytest.approx([6.76, 7.29, 10.5], rel=0.005)
