"""SDXL at full size on a GPU: the documentation's loop against the farm's engine and the whole farm.

In one run, on checkpoints of the real size that it makes itself (random weights; see full_size.py):

- loop: `StableDiffusionXLPipeline` and refiner in fp16, one prompt after the other, saved as PNG by Pillow; and the
  same without saving anything (`output_type="pt"`), so that nobody mistakes the one gain for the other;
- batched loop: the same with `--batch-size` prompts a call;
- engine: the worker's stages, each alone and one after the other, with pictures encoded as the farm delivers them;
- farm: `farm up` with one worker, from the submission to the job's end by the database's clock.

Rates are medians of the runs; the ways that share a process take turns. The chip's matrix rate is measured with
products of large matrices, and the share of it that a way reaches follows from the operations of a picture, counted by
torch. A warm-up call of each way is left out.

    .venv/bin/python benchmarks/gpu.py                              # 1024x1024, 40 steps split at 0.8
    .venv/bin/python benchmarks/gpu.py --setting mlperf             # 20 Euler steps, guidance 8, base only
    .venv/bin/python benchmarks/gpu.py --small                      # the tiny pipeline on a CPU: is all of it alive?
"""

import argparse
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from farms import farm_up
from full_size import BASE_UNET, REFINER_UNET, tera_flop, tera_flop_of_decoding, write_checkpoint
from rich.console import Console
from rich.table import Table

from farm.catalog import Defaults, Pipeline
from farm.schedule import split_steps
from farm.spec import ImageParameters
from farm.states import Stage
from producer import Farm
from worker import stages
from worker.encode import encode
from worker.pipelines import LoadedPipeline, load
from worker.tiny import write_tiny_checkpoint

NAME = "full-size"
AIM_OVER_LOOP, AIM_OVER_BATCHED, AIM_OF_MATRIX_RATE, AIM_FARM = 3.0, 1.5, 0.60, 0.97


@dataclass(frozen=True)
class Setting:
    """What is rendered, and how often."""

    size: int = 1024
    steps: int = 40
    guidance: float = 5.0
    split: float | None = 0.8
    batch_size: int = 8
    batches: int = 2
    runs: int = 3
    dtype: str = "float16"
    device: str = "cuda"

    @property
    def images(self) -> int:
        """Pictures of a run."""
        return self.batch_size * self.batches

    @property
    def evaluations(self) -> tuple[int, int]:
        """Steps of base and refiner."""
        return (self.steps, 0) if self.split is None else split_steps(self.steps, self.split)


SETTINGS = {"documentation": Setting(), "mlperf": Setting(steps=20, guidance=8.0, split=None)}
SMALL = Setting(size=64, steps=5, batch_size=2, batches=2, runs=1, dtype="float32", device="cpu")

Way = Callable[[list[str]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, default="documentation")
    parser.add_argument("--small", action="store_true", help="the tiny pipeline on a CPU")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    for name in ("size", "steps", "batch-size", "batches", "runs"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        raise SystemExit("There is no GPU that torch can use here; try --small.")
    chosen = SMALL if options.small else SETTINGS[options.setting]
    given = {name: value for name, value in vars(options).items() if name in asdict(chosen) and value is not None}
    setting = Setting(**{**asdict(chosen), **given})
    with tempfile.TemporaryDirectory() as directory:
        report(measure(setting, Path(directory), small=options.small), setting, as_json=options.json)


def measure(setting: Setting, directory: Path, *, small: bool) -> dict[str, Any]:
    tiny, checkpoint = directory / "tiny", directory / "full"
    write_tiny_checkpoint(tiny)
    if small:
        checkpoint = tiny
    else:
        tell("writing the checkpoint")
        write_checkpoint(checkpoint, tiny, setting.device, getattr(torch, setting.dtype))
    results: dict[str, Any] = {"machine": machine(setting), "loop": loop_rates(checkpoint, setting)}
    begun = time.perf_counter()
    loaded = load(entry(checkpoint, setting), directory, torch_device(setting), frozenset(served(setting)))
    results["seconds to load"] = time.perf_counter() - begun
    results["engine"] = rates(engine_ways(loaded, setting), setting)
    results["matrix rate, TFLOP/s"] = matrix_rate(setting)
    results["TFLOP per image"] = operations(setting) if not small else None
    del loaded
    if setting.device != "cpu":
        torch.cuda.empty_cache()
    results["farm"] = farm_rates(checkpoint, setting, directory)
    return results


def loop_rates(checkpoint: Path, setting: Setting) -> dict[str, dict[str, float]]:
    base, refiner = loop_pipelines(checkpoint, setting)
    one_by_one = [[text] for text in prompts(setting.images)]
    ways = {
        "loop, PNG": (one_by_one, lambda texts: loop(base, refiner, texts, setting, save=True)),
        "loop, tensors": (one_by_one, lambda texts: loop(base, refiner, texts, setting, save=False)),
        "batched loop, PNG": (batches(setting), lambda texts: loop(base, refiner, texts, setting, save=True)),
    }
    return rates(ways, setting)


def loop_pipelines(checkpoint: Path, setting: Setting) -> tuple[Any, Any]:
    """As https://huggingface.co/docs/diffusers/using-diffusers/sdxl loads them."""
    common = {"dtype": getattr(torch, setting.dtype), "use_safetensors": True}
    base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", **common).to(setting.device)
    refiner = None
    if setting.split is not None:
        refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
            checkpoint / "refiner", text_encoder_2=base.text_encoder_2, vae=base.vae, **common
        ).to(setting.device)
    for pipe in (base, refiner):
        if pipe is not None:
            pipe.set_progress_bar_config(disable=True)
    return base, refiner


def loop(base: Any, refiner: Any, texts: list[str], setting: Setting, *, save: bool) -> None:
    """The documentation's calls for one list of prompts, to PNG files in memory or to tensors on the device."""
    last = {"output_type": "pil" if save else "pt"}
    common = {"prompt": texts, "num_inference_steps": setting.steps, "guidance_scale": setting.guidance}
    size = {"width": setting.size, "height": setting.size}
    if refiner is None:
        made = base(**common, **size, **last).images
    else:
        latents = base(**common, **size, denoising_end=setting.split, output_type="latent").images
        made = refiner(**common, denoising_start=setting.split, image=latents, **last).images
    if save:
        for picture in made:
            picture.save(io.BytesIO(), "PNG")


def engine_ways(loaded: LoadedPipeline, setting: Setting) -> dict[str, tuple[list[list[str]], Way]]:
    """The worker's stages. Where there is a refiner, each also alone: it gets latents of a base that was not timed."""
    batched = batches(setting)

    def base(texts: list[str]) -> Any:
        return stages.render_base(loaded, images(texts, setting), {}, lambda _step: None)

    def delivered(pictures: list[Any], texts: list[str]) -> None:
        for picture, parameters in zip(pictures, images(texts, setting), strict=True):
            encode(picture, parameters, {})

    if setting.split is None:

        def alone(texts: list[str]) -> None:
            delivered(stages.render_base_only(loaded, images(texts, setting), {}, lambda _step: None), texts)

        return {"engine": (batched, alone)}
    latents = base(batched[0])

    def refiner(texts: list[str], given: Any = latents) -> None:
        delivered(stages.render_refiner(loaded, images(texts, setting), {}, given, lambda _step: None), texts)

    return {
        "base stage": (batched, base),
        "refiner stage": (batched, refiner),
        "engine": (batched, lambda texts: refiner(texts, base(texts))),
    }


def rates(ways: dict[str, tuple[list[list[str]], Way]], setting: Setting) -> dict[str, dict[str, float]]:
    """Images per second and peak memory of each way, which take turns."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, float] = dict.fromkeys(ways, 0.0)
    for name, (calls, do) in ways.items():
        tell(f"warming up: {name}")
        do(calls[0])
    for run in range(setting.runs):
        for name, (calls, do) in ways.items():
            tell(f"run {run + 1} of {setting.runs}: {name}")
            wait_for_device(setting, reset=True)
            begun = time.perf_counter()
            for texts in calls:
                do(texts)
            wait_for_device(setting)
            measured[name].append(sum(map(len, calls)) / (time.perf_counter() - begun))
            if setting.device != "cpu":
                peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() / 2**30)
    return {name: {"images/s": statistics.median(runs), "peak GiB": peaks[name]} for name, runs in measured.items()}


def wait_for_device(setting: Setting, *, reset: bool = False) -> None:
    if setting.device != "cpu":
        torch.cuda.synchronize()
        if reset:
            torch.cuda.reset_peak_memory_stats()


def matrix_rate(setting: Setting) -> float | None:
    """TFLOP/s of products of large matrices in the setting's dtype, median; None on a CPU."""
    if setting.device == "cpu":
        return None
    edge, seconds = 8192, []
    left, right = (torch.randn(edge, edge, device=setting.device, dtype=getattr(torch, setting.dtype)) for _ in "ab")
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "se")
        start.record()
        left @ right
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return 2 * edge**3 / statistics.median(seconds) / 1e12


def operations(setting: Setting) -> float:
    """TFLOP of one picture: every step twice with guidance, and the decoding."""
    base, refiner = setting.evaluations
    passes = 2 if setting.guidance > 1 else 1
    unets = base * tera_flop(BASE_UNET, setting.size) + refiner * tera_flop(REFINER_UNET, setting.size)
    return passes * unets + tera_flop_of_decoding(setting.size)


def farm_rates(checkpoint: Path, setting: Setting, directory: Path) -> dict[str, float]:
    """The whole farm, by the database's clock: a job of all the images, after one of a batch."""
    catalog = directory / "catalog.toml"
    refiner = "" if setting.split is None else f'refiner = "{checkpoint}/refiner"\n'
    catalog.write_text(
        f'[pipelines.{NAME}]\nbase = "{checkpoint}/base"\n{refiner}dtype = "{setting.dtype}"\n'
        f"batch_size = {setting.batch_size}\n"
    )
    devices = "cpu" if setting.device == "cpu" else "cuda:0"
    tell("starting the farm")
    begun = time.perf_counter()
    fields = {
        "steps": setting.steps,
        "size": f"{setting.size}x{setting.size}",
        "guidance_scale": setting.guidance,
        "refiner_split": setting.split,
    }
    with farm_up(directory / "farm", devices, NAME, FARM_CATALOG=str(catalog)) as url, Farm(url) as farm:
        started = time.perf_counter() - begun
        farm.submit(prompts(1), **fields).wait()
        first = time.perf_counter() - begun
        farm.submit(prompts(setting.batch_size), **fields).wait()
        found = []
        for run in range(setting.runs):
            tell(f"run {run + 1} of {setting.runs}: farm")
            job = farm.submit(prompts(setting.images), **fields).wait()
            if job.state != "completed":
                raise SystemExit(f"The job is {job.state}: {dict(job.errors)}")
            begun_at, ended_at = (datetime.fromisoformat(job.data[name]) for name in ("created_at", "finished_at"))
            found.append(setting.images / (ended_at - begun_at).total_seconds())
    return {"images/s": statistics.median(found), "seconds to start": started, "seconds to first picture": first}


def entry(checkpoint: Path, setting: Setting) -> Pipeline:
    return Pipeline(
        name=NAME,
        base=str(checkpoint / "base"),
        refiner=None if setting.split is None else str(checkpoint / "refiner"),
        dtype=setting.dtype,  # type: ignore[arg-type]
        batch_size=setting.batch_size,
        defaults=Defaults(refiner_split=setting.split),
    )


def served(setting: Setting) -> set[Stage]:
    return {Stage.BASE} if setting.split is None else set(Stage)


def torch_device(setting: Setting) -> str:
    return setting.device if setting.device == "cpu" else f"{setting.device}:0"


def images(texts: list[str], setting: Setting) -> list[ImageParameters]:
    common = {
        "pipeline": NAME,
        "width": setting.size,
        "height": setting.size,
        "num_inference_steps": setting.steps,
        "guidance_scale": setting.guidance,
        "refiner_split": setting.split,
        # The documentation's loop marks no pictures where the package is missing.
        "watermark": False,
    }
    return [ImageParameters.model_validate({**common, "prompt": text, "seed": n}) for n, text in enumerate(texts)]


def prompts(count: int) -> list[str]:
    return [f"a red fox in the snow, photograph, 85 mm, shallow depth of field, {number}" for number in range(count)]


def batches(setting: Setting) -> list[list[str]]:
    texts = prompts(setting.images)
    return [texts[start : start + setting.batch_size] for start in range(0, setting.images, setting.batch_size)]


def machine(setting: Setting) -> dict[str, str]:
    gpu = "none" if setting.device == "cpu" else torch.cuda.get_device_name()
    packages = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"gpu": gpu, "cuda": str(torch.version.cuda), "python": platform.python_version(), **packages}


def tell(what: str) -> None:
    Console(stderr=True).print(what, style="dim")


def report(results: dict[str, Any], setting: Setting, *, as_json: bool) -> None:
    found = {name: one["images/s"] for part in ("loop", "engine") for name, one in results[part].items()}
    found["farm"] = results["farm"]["images/s"]
    rate, work = results["matrix rate, TFLOP/s"], results["TFLOP per image"]
    shares = {name: images_per_second * work / rate for name, images_per_second in found.items()} if rate else {}
    ratios = {
        "engine / loop": found["engine"] / found["loop, PNG"],
        "engine / loop without saving": found["engine"] / found["loop, tensors"],
        "engine / batched loop": found["engine"] / found["batched loop, PNG"],
        "farm / engine": found["farm"] / found["engine"],
    }
    if as_json:
        print(json.dumps({**results, "setting": asdict(setting), "ratios": ratios, "of matrix rate": shares}))
        return
    table = Table("", "images/s", "s/image", "peak GiB", "of matrix rate", title=f"{setting}")
    for name, images_per_second in found.items():
        peak = {**results["loop"], **results["engine"]}.get(name, {}).get("peak GiB")
        # A stage alone does a part of the work.
        share = f"{shares[name]:.2f}" if name in shares and not name.endswith("stage") else ""
        memory = f"{peak:.1f}" if peak else ""
        table.add_row(name, f"{images_per_second:.3f}", f"{1 / images_per_second:.3f}", memory, share)
    Console(width=120).print(table)
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    for name in ("seconds to start", "seconds to first picture"):
        print(f"farm, {name}: {results['farm'][name]:.1f}")
    if rate:
        print(f"matrix rate: {rate:.0f} TFLOP/s; a picture takes {work:.0f} TFLOP")
    print(
        f"aims at full size on an H200: engine at least {AIM_OVER_LOOP} times the loop and {AIM_OVER_BATCHED} times "
        f"the batched one, {AIM_OF_MATRIX_RATE:.0%} of the matrix rate; farm at least {AIM_FARM:.0%} of the engine"
    )


if __name__ == "__main__":
    main()
