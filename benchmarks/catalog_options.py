"""Options of the catalog against each other: the engine's rate, its memory, and the error of its pictures."""

from typing import Any

from parts import Result
from setting import Setting, Work, entry

_PLAIN = {"channels_last": False, "fused_qkv": False, "compile": "none"}
_BFLOAT16 = {"dtype": "bfloat16"}
_COMPILED = {"compile": "full", "channels_last": True}

#: What each changes about the entry. 8-bit layers hand over bfloat16. "compiled" is all together that may help.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": _PLAIN,
    "defaults": {},
    "channels-last": {**_PLAIN, "channels_last": True},
    "fused-qkv": {**_PLAIN, "fused_qkv": True},
    "attention-cudnn": {**_PLAIN, "attention": "cudnn"},
    "attention-flash": {**_PLAIN, "attention": "flash"},
    "vae-bfloat16": {**_PLAIN, "vae_dtype": "bfloat16"},
    "bfloat16": {**_PLAIN, **_BFLOAT16},
    "int8": {**_PLAIN, **_BFLOAT16, "quantisation": "int8"},
    "fp8": {**_PLAIN, **_BFLOAT16, "quantisation": "fp8"},
    "compile-regional": {**_PLAIN, "compile": "regional"},
    "compile-full": {**_PLAIN, "compile": "full"},
    "bfloat16-compiled": {**_BFLOAT16, **_COMPILED},
    "int8-compiled": {**_BFLOAT16, **_COMPILED, "quantisation": "int8"},
    "fp8-compiled": {**_BFLOAT16, **_COMPILED, "quantisation": "fp8"},
    "compile-max-autotune": {**_PLAIN, "compile": "max-autotune"},
}


def usual(setting: Setting) -> list[str]:
    """Those that are measured when none is named: on a CPU, which compiles for minutes, those that are not compiled."""
    on_gpu = setting.device != "cpu"
    return [name for name, changes in OPTIONS.items() if on_gpu or changes.get("compile", "none") == "none"]


def option_part(work: Work, name: str) -> Result:
    """What an option gives. Raises ConfigurationError where this machine refuses it."""
    from pictures_error import error_part
    from timing import DeviceClock, rates
    from ways import engine_ways, loaded_engine

    chosen = entry(work, OPTIONS[name])
    loaded, seconds = loaded_engine(work, OPTIONS[name])
    clock = DeviceClock(work.setting)
    engine = {"engine": engine_ways(loaded, work.setting, clock)["engine"]}
    found = rates(engine, work.setting, clock)["engine"]
    said = {"dtype": chosen.dtype, "quantisation": chosen.quantisation, "seconds to load": seconds}
    return {**said, **found, **(error_part(loaded, work) if "failed" not in found else {})}
