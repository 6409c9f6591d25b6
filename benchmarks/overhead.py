"""What the farm costs beside plain diffusers: the same tiny images by a bare loop and by the whole farm.

Both render in batches of the same size, in alternation, and write PNG files. The bare loop is the documentation's
code in a process of its own, with nothing beside it. The farm is `farm up` with one worker of both stages: Postgres,
Valkey, producer, dashboard, worker and store share the machine. A run is timed from the submission to the job's end,
by the database's clock. Loading and one warm-up batch are left out on both sides.

    .venv/bin/python benchmarks/overhead.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from farms import farm_up
from rich.console import Console
from rich.progress import track
from rich.table import Table

from producer import Farm

AIM = 0.95
SPLIT = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=256, help="edge in pixels")
    parser.add_argument("--runs", type=int, default=3, help="of each side, in alternation")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--bare", metavar="CHECKPOINT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(bare_loop(Path(options.bare), options))
        return
    report(compare(options), options)


def prompts(count: int) -> list[str]:
    return [f"picture number {number} of a red fox in the snow" for number in range(count)]


def bare_loop(checkpoint: Path, options: argparse.Namespace) -> float:
    """Images per second of the documentation's loop."""
    import torch
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", dtype=torch.float32, use_safetensors=True)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
        checkpoint / "refiner",
        text_encoder_2=base.text_encoder_2,
        vae=base.vae,
        dtype=torch.float32,
        use_safetensors=True,
    )
    base.set_progress_bar_config(disable=True)
    refiner.set_progress_bar_config(disable=True)

    def render(first: int, texts: list[str], directory: Path) -> None:
        seeds = range(first, first + len(texts))
        common = {"prompt": texts, "num_inference_steps": options.steps}
        latents = base(
            **common,
            width=options.size,
            height=options.size,
            denoising_end=SPLIT,
            output_type="latent",
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        ).images
        images = refiner(
            **common,
            denoising_start=SPLIT,
            image=latents,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        ).images
        for seed, image in zip(seeds, images, strict=True):
            image.save(directory / f"{seed:06d}.png")

    texts = prompts(options.images)
    with tempfile.TemporaryDirectory() as directory:
        render(0, texts[: options.batch_size], Path(directory))
        started = time.monotonic()
        for first in range(0, options.images, options.batch_size):
            render(first, texts[first : first + options.batch_size], Path(directory))
        return options.images / (time.monotonic() - started)


def compare(options: argparse.Namespace) -> dict[str, list[float]]:
    """Rates of both sides, run by run."""
    rates: dict[str, list[float]] = {"bare": [], "farm": []}
    with tempfile.TemporaryDirectory() as directory:
        # Others may look in: the embedded Postgres runs as a user of its own when started by root.
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        with farm_up(data) as url:
            farm_run(url, options, options.batch_size)
            for _ in track(range(options.runs), "runs", console=Console(stderr=True)):
                rates["farm"].append(farm_run(url, options, options.images))
                rates["bare"].append(bare_run(data / "models" / "tiny", options))
    return rates


def farm_run(url: str, options: argparse.Namespace, count: int) -> float:
    """Images per second of the farm, from submission to the job's end."""
    fields = {
        "seed": 0,
        "steps": options.steps,
        "size": f"{options.size}x{options.size}",
        "batch_size": options.batch_size,
        "refiner_split": SPLIT,
    }
    with Farm(url) as farm:
        job = farm.submit(prompts(count), **fields).wait()
    if job.state != "completed":
        raise SystemExit(f"The job is {job.state}: {job.errors}")
    seconds = datetime.fromisoformat(job.data["finished_at"]) - datetime.fromisoformat(job.data["created_at"])
    return count / seconds.total_seconds()


def bare_run(checkpoint: Path, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--bare", str(checkpoint)]
    for name in ("images", "batch-size", "steps", "size"):
        command += [f"--{name}", str(getattr(options, name.replace("-", "_")))]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def report(rates: dict[str, list[float]], options: argparse.Namespace) -> None:
    ratios = [farm / bare for farm, bare in zip(rates["farm"], rates["bare"], strict=True)]
    medians = {side: statistics.median(values) for side, values in rates.items()}
    if options.json:
        print(json.dumps({"images_per_second": rates, "median": medians, "ratios": ratios}))
        return
    setting = f"{options.size}x{options.size}, {options.steps} steps, batches of {options.batch_size}"
    table = Table("", "images/s (median)", "all runs", title=f"{options.images} images, {setting}")
    for side, label in (("bare", "plain diffusers loop"), ("farm", "whole farm, one worker")):
        table.add_row(label, f"{medians[side]:.2f}", "  ".join(f"{rate:.2f}" for rate in rates[side]))
    table.add_row("farm / bare", f"{statistics.median(ratios):.3f}", "  ".join(f"{ratio:.3f}" for ratio in ratios))
    Console().print(table)
    print(f"aim: at least {AIM:.2f}")


if __name__ == "__main__":
    main()
