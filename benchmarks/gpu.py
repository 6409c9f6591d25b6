"""SDXL at full size on a GPU: the documentation's loop against the farm's engine and the whole farm.

In one run, on checkpoints of the real size that it makes itself (random weights; see full_size.py):

- loop: `StableDiffusionXLPipeline` and refiner in fp16, one prompt after the other, saved as PNG by Pillow; and the
  same without saving anything (`output_type="pt"`), so that nobody mistakes the one gain for the other;
- batched loop: the same with `--batch-size` prompts a call;
- engine: the worker's stages, each alone and one after the other, with pictures encoded as the farm delivers them;
- farm: `farm up` with one worker, from the submission to the job's end by the database's clock;
- arrivals: single interactive requests to that farm, at random times, at 90 % of the rate that it has just reached
  (always with the setting mlperf);
- options: the engine with options of the catalog, and how far its pictures are from those of plain diffusers in float32
  (`--options` measures all of them, or those that it names).

Rates are medians of the runs; the ways of one part take turns, and no two runs have a prompt in common. Of each way is
told how much of the time the device was busy (timing.py says by which measure), its peak of memory, and how long its
first call took. The chip's matrix rate is measured with products of large matrices, and the share of it that a way
reaches follows from the operations of a picture, counted by torch. A part that fails takes no other along; if one did
fail, the exit status is 1.

    .venv/bin/python benchmarks/gpu.py                              # 1024x1024, 40 steps split at 0.8
    .venv/bin/python benchmarks/gpu.py --setting mlperf             # 20 Euler steps, guidance 8, base only
    .venv/bin/python benchmarks/gpu.py --setting mlperf --only options --options bfloat16 fp8   # two options alone
    .venv/bin/python benchmarks/gpu.py --small                      # the tiny pipeline on a CPU: is all of it alive?

All of it, an hour or more of a GPU, kept as JSON and Markdown after each part:

    .venv/bin/python benchmarks/gpu.py --all --save benchmarks/results
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from arrivals import arrivals
from catalog_options import OPTIONS, option_part, usual
from parts import PartFailedError, Result, attempt, isolated, reason, tell
from report import FLOAT16, Kept, show, summary
from setting import SETTINGS, Setting, Work, small
from whole_farm import RunningFarm, offline, running_farm

PARTS = ("loop", "engine", "farm", "arrivals", "options")


def main() -> None:
    options = parsed()
    wanted = [SETTINGS[name] for name in (SETTINGS if options.all else [options.setting])]
    given = {name: value for name, value in vars(options).items() if name in asdict(wanted[0]) and value is not None}
    settings = [replace(small(setting) if options.small else setting, **given) for setting in wanted]
    results = []
    with tempfile.TemporaryDirectory() as directory:
        work = Work(settings[0], Path(directory) / "checkpoint", Path(directory))
        try:
            machine = isolated(not options.small, prepare, work)
        except PartFailedError as error:
            raise SystemExit(str(error)) from None
        for setting in settings:
            results.append(
                measure(replace(work, setting=setting), machine, parts(setting, options), options.options, options.save)
            )
            if not options.json:
                show(results[-1])
    if options.json:
        print(json.dumps([summary(result) for result in results]))
    if any(has_failed(result) for result in results):
        raise SystemExit(1)


def has_failed(result: Result) -> bool:
    """Whether a part came to nothing, or a way of one; that this machine refuses an option is no failure."""
    found = [result[part] for part in result if part in PARTS and part != "options"]
    ways = [way for part in found for way in part.get("ways", {}).values()]
    return any("failed" in one for one in (*found, *ways, result.get(FLOAT16, {})))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, default="documentation")
    parser.add_argument("--small", action="store_true", help="the tiny pipeline on a CPU")
    parser.add_argument(
        "--all", action="store_true", help="both settings, arrivals with each, the options with mlperf (of --options)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--arrivals", action="store_true", help="also single requests at random times")
    parser.add_argument(
        "--options", nargs="*", choices=OPTIONS, metavar="OPTION", help=f"also options: of {', '.join(OPTIONS)}"
    )
    parser.add_argument("--save", type=Path, metavar="DIRECTORY", help="keep JSON and Markdown: benchmarks/results")
    parser.add_argument("--json", action="store_true", help="print one JSON document: a list, setting by setting")
    for name in ("size", "steps", "batch-size", "batches", "farm-batches", "runs", "requests"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    return parser.parse_args()


def parts(setting: Setting, options: argparse.Namespace) -> list[str]:
    """Those that are measured, in the order of PARTS. Arrivals need the farm's rate."""
    chosen = {"loop", "engine", "farm"}
    if options.arrivals or options.all or setting.name == "mlperf":
        chosen.add("arrivals")
    if setting.name == "mlperf" if options.all else options.options is not None:
        chosen.add("options")
    if options.only:
        chosen = set(options.only)
    if "arrivals" in chosen:
        chosen.add("farm")
    return [part for part in PARTS if part in chosen]


def prepare(work: Work) -> dict[str, str]:
    """Write the checkpoint; returns what the machine is."""
    import torch
    from full_size import write_checkpoint

    from worker.tiny import write_tiny_checkpoint

    cuda = work.setting.device != "cpu"
    if cuda and not torch.cuda.is_available():
        raise SystemExit("There is no GPU that torch can use here; try --small.")
    if cuda:
        tell("writing the checkpoint")
        write_tiny_checkpoint(work.directory / "tiny")
        # In the dtype of the variant that is mostly loaded, whatever it is loaded as.
        write_checkpoint(work.checkpoint, work.directory / "tiny", work.setting.device, torch.float16)
    else:
        write_tiny_checkpoint(work.checkpoint)
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "gpu": torch.cuda.get_device_name() if cuda else "CPU",
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        "commit": described.stdout.strip() or "unknown",
    }


def measure(
    work: Work, machine: dict[str, str], chosen: list[str], named: list[str] | None, save: Path | None
) -> Result:
    """All parts that are chosen, kept as they come."""
    result: Result = {
        "machine": machine,
        "setting": asdict(work.setting),
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(sys.argv),
    }
    kept = None if save is None else Kept(save, result)

    def note(part: str, do: Callable[[], Result], within: Result = result) -> None:
        within[part] = attempt(part, do)
        if kept is not None:
            kept.write(result)

    cuda = work.setting.device != "cpu"
    if "loop" in chosen:
        note("loop", partial(isolated, cuda, loop, work))
    if "engine" in chosen:
        note("engine", partial(isolated, cuda, engine, work))
    if "farm" in chosen:
        measure_farm(work, result, note, chosen)
    if "options" in chosen:
        note(FLOAT16, partial(isolated, cuda, reference, work))
        result["options"] = {}
        for name in named or usual(work.setting):
            note(name, partial(isolated, cuda, option_part, work, name), result["options"])
    if kept is not None:
        tell(f"kept: {kept.path}")
    return result


def measure_farm(
    work: Work, result: Result, note: Callable[[str, Callable[[], Result]], None], chosen: list[str]
) -> None:
    """The farm's parts, on one farm."""
    running: list[RunningFarm] = []
    try:
        with ExitStack() as stack:

            def farm() -> Result:
                running.append(stack.enter_context(running_farm(work)))
                return offline(running[0], work.setting)

            def requests() -> Result:
                if "failed" in result["farm"]:
                    raise PartFailedError("the farm's rate is missing")
                return arrivals(running[0], work.setting, result["farm"]["images/s"])

            note("farm", farm)
            if "arrivals" in chosen:
                note("arrivals", requests)
    except Exception as error:  # noqa: BLE001 - what it was to tell is told
        tell(f"the farm did not end well: {reason(error)}")


# Each imports torch in the process that computes, and nowhere else.


def loop(work: Work) -> Result:
    from ways import loop_part

    return loop_part(work)


def engine(work: Work) -> Result:
    from ways import engine_part

    return engine_part(work)


def reference(work: Work) -> Result:
    from pictures_error import reference_part

    return reference_part(work)


if __name__ == "__main__":
    main()
