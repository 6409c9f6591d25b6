"""What a result comes to: ratios of its rates, and whether they reach what was aimed at, for one H200 at 1024x1024."""

from collections.abc import Iterator
from typing import Any

from parts import Result


def images_per_second(result: Result) -> dict[str, float]:
    """Of each way, and of the farm."""
    ways = {**result.get("loop", {}).get("ways", {}), **result.get("engine", {}).get("ways", {})}
    found = {**ways, "farm": result.get("farm", {})}
    return {name: one["images/s"] for name, one in found.items() if "images/s" in one}


def ratios(result: Result) -> dict[str, float | None]:
    """Of rates that were measured in one run; None where one of them is missing."""
    found = images_per_second(result)
    bfloat16, fp8 = _fastest(result, "none"), _fastest(result, "fp8")
    return {
        "engine / loop": _over(found.get("engine"), found.get("loop, PNG")),
        "engine / loop without saving": _over(found.get("engine"), found.get("loop, tensors")),
        "engine / batched loop": _over(found.get("engine"), found.get("batched loop, PNG")),
        "farm / engine": _over(found.get("farm"), found.get("engine")),
        "fp8 / bfloat16, the fastest of each": _over(fp8, bfloat16),
    }


def of_matrix_rate(result: Result) -> dict[str, float]:
    """The share of the device's matrix rate that whole pictures reach; a stage alone does a part of the work."""
    engine = result.get("engine", {})
    rate, work = engine.get("matrix rate, TFLOP/s"), engine.get("TFLOP per image")
    if rate is None or work is None:
        return {}
    found = images_per_second(result)
    return {name: found[name] * work / rate for name in found if not name.endswith("stage")}


def aims(result: Result) -> list[dict[str, Any]]:
    """Each with its ``figure``, the least that it shall be, and the ``verdict``."""
    may_be_judged = result["setting"]["device"] != "cpu" and result["setting"]["size"] == 1024
    return [
        {"aim": aim, "at least": least, "figure": figure, "verdict": _verdict(figure, least, may_be_judged)}
        for aim, least, figure in _figures(result)
    ]


def _figures(result: Result) -> Iterator[tuple[str, float, float | None]]:
    ratio = ratios(result)
    yield "engine / loop", 3.0, ratio["engine / loop"]
    yield "engine / batched loop", 1.5, ratio["engine / batched loop"]
    yield "engine, share of the matrix rate", 0.60, of_matrix_rate(result).get("engine")
    yield "farm / engine", 0.97, ratio["farm / engine"]
    engine = result.get("engine", {}).get("ways", {}).get("engine", {})
    yield "engine, busy share", 0.97, engine.get("busy share")
    yield "farm, busy share", 0.97, result.get("farm", {}).get("busy share")
    yield "arrivals, share of the offline rate", 0.93, result.get("arrivals", {}).get("share of the offline rate")
    yield "fp8 / bfloat16", 1.25, ratio["fp8 / bfloat16, the fastest of each"]
    if result["setting"]["name"] == "mlperf":
        yield "bfloat16, images/s", 2.0, _fastest(result, "none")
        yield "fp8, images/s", 2.4, _fastest(result, "fp8")


def _verdict(figure: float | None, least: float, may_be_judged: bool) -> str:
    if not may_be_judged:
        return "not judged"
    if figure is None:
        return "not measured"
    return "reached" if figure >= least else "missed"


def _fastest(result: Result, quantisation: str) -> float | None:
    """Images per second of the fastest option in bfloat16 with this quantisation."""
    rates = [
        option["images/s"]
        for option in result.get("options", {}).values()
        if option.get("dtype") == "bfloat16" and option.get("quantisation") == quantisation and "images/s" in option
    ]
    return max(rates, default=None)


def _over(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other
