"""How fast a way of rendering is, and how much of the time the device is at work."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pynvml
import torch
from full_size import BASE_UNET, REFINER_UNET, tera_flop, tera_flop_of_decoding
from parts import Result, reason, tell
from sampling import sampled
from setting import WARM_UP, Setting

#: Between two looks at what the driver says; it averages over a sixth of a second to a second itself.
SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Way:
    """A way of rendering."""

    calls: Callable[[str], list[list[str]]]
    """The prompts of each call of the run with this name."""
    do: Callable[[list[str]], object]
    """A call."""


@dataclass(frozen=True)
class _Run:
    images: int
    seconds: float
    busy_seconds: float
    kernels: float | None
    peak_gib: float | None


class DeviceClock:
    """Adds up the seconds that the device is given to calls.

    With CUDA by pairs of events on the current stream: from when the device reaches the first to when it reaches the
    second. What a call leaves it idle in between, waiting for the host, counts as busy; how long kernels ran is what
    the driver tells of (``kernels_share``). On a CPU it is the calls' own time by the wall clock: what a run takes
    beyond it is the encoding of pictures.
    """

    def __init__(self, setting: Setting) -> None:
        self._on_cpu = setting.device == "cpu"
        self._seconds = 0.0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """A call, or several in a row."""
        if self._on_cpu:
            begun = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - begun
            return
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._pairs.append((begin, end))

    def take(self) -> float:
        """The seconds since the last time. All calls must have ended on the device."""
        seconds = self._seconds + sum(float(begin.elapsed_time(end)) for begin, end in self._pairs) / 1000
        self._seconds, self._pairs = 0.0, []
        return seconds


def rates(ways: dict[str, Way], setting: Setting, clock: DeviceClock) -> dict[str, Result]:
    """Of each way, which take turns, or ``failed``: why; ``failed later`` if some of its runs had gone well.

    ``images/s``, the median of the runs. ``busy share``: what ``clock`` counted, over the whole run's time.
    ``kernels share``: the share of the time in which a kernel ran, as the driver tells it; None where it does not.
    ``peak GiB``: of torch's tensors on the device. ``warm-up seconds``: of a first call that is not counted; ways of
    the same weights share what the first of them has warmed.
    """
    runs: dict[str, list[_Run]] = {name: [] for name in ways}
    failed: dict[str, str] = {}
    for run in (WARM_UP, *(f"run {number + 1}" for number in range(setting.runs))):
        for name, way in ways.items():
            if name in failed:
                continue
            tell(f"{name}: {run}")
            try:
                runs[name].append(_run(way, run, setting, clock))
            except Exception as error:  # noqa: BLE001 - mostly memory, which the others may have enough of
                failed[name] = reason(error)
                tell(f"{name} failed: {failed[name]}")
            if name in failed and setting.device != "cpu":
                with suppress(RuntimeError):
                    torch.cuda.empty_cache()
    return {name: _summary(found, failed.get(name)) for name, found in runs.items()}


def _run(way: Way, run: str, setting: Setting, clock: DeviceClock) -> _Run:
    calls = way.calls(run)
    if run == WARM_UP:
        calls = calls[:1]
    on_gpu = setting.device != "cpu"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    # What a call that failed may have left.
    clock.take()
    with sampled(kernels_share if on_gpu else lambda: None, SAMPLE_SECONDS) as kernels:
        begun = time.perf_counter()
        for texts in calls:
            way.do(texts)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    share = statistics.fmean(kernels) if kernels else None
    return _Run(sum(map(len, calls)), seconds, clock.take(), share, peak)


def _summary(runs: list[_Run], failed: str | None) -> Result:
    if len(runs) < 2:
        return {"failed": failed}
    warm_up, *counted = runs
    kernels = [run.kernels for run in counted if run.kernels is not None]
    peaks = [run.peak_gib for run in counted if run.peak_gib is not None]
    return {
        "images/s": statistics.median(run.images / run.seconds for run in counted),
        "busy share": statistics.median(run.busy_seconds / run.seconds for run in counted),
        "kernels share": statistics.median(kernels) if kernels else None,
        "peak GiB": max(peaks, default=None),
        "warm-up seconds": warm_up.seconds,
        **({"failed later": failed} if failed else {}),
    }


def kernels_share() -> float | None:
    """Share of the last moment in which a kernel ran, 0 to 1, by NVML; None where the driver does not tell."""
    try:
        return torch.cuda.utilization() / 100
    except (ModuleNotFoundError, RuntimeError, pynvml.NVMLError):
        return None


def matrix_rate(setting: Setting) -> float | None:
    """TFLOP/s of products of large matrices in the setting's dtype, median; None on a CPU."""
    if setting.device == "cpu":
        return None
    edge, seconds = 8192, []
    left, right = (torch.randn(edge, edge, device=setting.device, dtype=getattr(torch, setting.dtype)) for _ in "ab")
    for _ in range(30):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        left @ right
        end.record()
        torch.cuda.synchronize()
        seconds.append(float(begin.elapsed_time(end)) / 1000)
    return 2 * edge**3 / statistics.median(seconds) / 1e12


def operations(setting: Setting) -> float | None:
    """TFLOP of one picture: every step twice with guidance, and the decoding; None of the tiny pipeline."""
    if setting.device == "cpu":
        return None
    base, refiner = setting.evaluations
    passes = 2 if setting.guidance > 1 else 1
    unets = base * tera_flop(BASE_UNET, setting.size) + refiner * tera_flop(REFINER_UNET, setting.size)
    return passes * unets + tera_flop_of_decoding(setting.size)
