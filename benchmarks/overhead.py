"""What the farm costs beside plain diffusers: the same tiny images by a bare loop and by the whole farm.

Both render in batches of the same size, in alternation, and write PNG files. The bare loop is the documentation's
code in a process of its own, with nothing beside it. The farm is `farm up` with one worker of both stages: Postgres,
Valkey, producer, dashboard, worker and store share the machine. A run is timed from the submission to the job's end,
by the database's clock. Loading and one warm-up batch are left out on both sides. Where the farm's time goes is told by
the rows of its batches: how long until the first claim, and what share of the whole the device computed.

    .venv/bin/python benchmarks/overhead.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from farms import farm_up
from rich.console import Console
from rich.progress import track
from rich.table import Table

from farm import embedded
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
    """Rates of both sides, and what shares of its time the farm waited for its first claim and computed, run by run."""
    found: dict[str, list[float]] = {"bare": [], "farm": [], "waiting": [], "computing": []}
    with tempfile.TemporaryDirectory() as directory:
        # Others may look in: the embedded Postgres runs as a user of its own when started by root.
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        with (
            embedded.postgres(data / "postgres") as database_url,
            farm_up(data, FARM_DATABASE_URL=database_url) as url,
        ):
            farm_run(url, database_url, options, options.batch_size)
            for _ in track(range(options.runs), "runs", console=Console(stderr=True)):
                run = farm_run(url, database_url, options, options.images)
                for name, value in zip(("farm", "waiting", "computing"), run, strict=True):
                    found[name].append(value)
                found["bare"].append(bare_run(data / "models" / "tiny", options))
    return found


#: Of a job: seconds in all, to its first claim, and that the device computed.
_TIMES = """
SELECT EXTRACT(epoch FROM finished_at - created_at), EXTRACT(epoch FROM started_at - created_at),
       (SELECT sum(base_seconds + refiner_seconds) FROM batches WHERE batches.job_id = jobs.id)
FROM jobs WHERE id = %s
"""


def farm_run(url: str, database_url: str, options: argparse.Namespace, count: int) -> tuple[float, float, float]:
    """Images per second of the farm, from submission to the job's end, and the shares of _TIMES of that time."""
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
    with psycopg.connect(database_url) as connection:
        row = connection.execute(_TIMES, (job.id,)).fetchone()
    assert row is not None
    whole, claimed, computed = map(float, row)
    return count / whole, claimed / whole, computed / whole


def bare_run(checkpoint: Path, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--bare", str(checkpoint)]
    for name in ("images", "batch-size", "steps", "size"):
        command += [f"--{name}", str(getattr(options, name.replace("-", "_")))]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def report(found: dict[str, list[float]], options: argparse.Namespace) -> None:
    ratios = [farm / bare for farm, bare in zip(found["farm"], found["bare"], strict=True)]
    medians = {name: statistics.median(values) for name, values in found.items()}
    if options.json:
        print(json.dumps({"runs": found, "median": medians, "ratios": ratios}))
        return
    setting = f"{options.size}x{options.size}, {options.steps} steps, batches of {options.batch_size}"
    table = Table("", "images/s (median)", "all runs", title=f"{options.images} images, {setting}")
    for side, label in (("bare", "plain diffusers loop"), ("farm", "whole farm, one worker")):
        table.add_row(label, f"{medians[side]:.2f}", "  ".join(f"{rate:.2f}" for rate in found[side]))
    table.add_row("farm / bare", f"{statistics.median(ratios):.3f}", "  ".join(f"{ratio:.3f}" for ratio in ratios))
    Console().print(table)
    print(f"aim: at least {AIM:.2f}")
    idle = 1 - medians["waiting"] - medians["computing"]
    print(
        f"the farm's time: {medians['waiting']:.1%} until the first claim, {medians['computing']:.1%} computing, "
        f"{idle:.1%} between calls and after the last (its pictures are encoded, stored and committed)"
    )


if __name__ == "__main__":
    main()
