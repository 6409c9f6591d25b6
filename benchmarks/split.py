"""Whether the stages of a farm stay level: real workers, split between base and refiner, and the work changes its mix.

A farm of several CPU devices whose stages are left to it renders tiny pictures with a late handover (most of the
work is the base's), then with an early one (most is the refiner's). Every second it is asked what waits and what each
worker does: the table tells for each phase how the devices were split at its end, since when, what share of their time
they held a batch, and how many latents waited for their refiner.

    .venv/bin/python benchmarks/split.py
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from farms import farm_up
from rich.console import Console
from rich.progress import track
from rich.table import Table

from producer import Farm

#: Share of the denoising that the base does, in each phase.
PHASES = (0.8, 0.3)


@dataclass
class Phase:
    """What was seen of a phase."""

    refiner_split: float
    seconds: float
    bases: int
    refiners: int
    """Devices of each stage at its end."""
    split_after_seconds: float
    """When the devices came to be split like this, from its beginning."""
    busy_share: float
    """Of the devices' time, that in which they held a batch."""
    latents_waiting: float
    """Batches that waited for their refiner, at the median."""
    latents_waiting_most: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=240, help="of each phase")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    devices = ",".join(["cpu"] * options.devices)
    with (
        tempfile.TemporaryDirectory() as directory,
        farm_up(Path(directory), devices, stage="auto") as url,
        Farm(url) as farm,
    ):
        phases = [_phase(farm, share, options.seconds, options.steps) for share in PHASES]
    if options.as_json:
        sys.stdout.write(json.dumps([asdict(phase) for phase in phases]) + "\n")
        return
    table = Table("Handover at", "Base : refiner", "Split after", "Devices busy", "Latents waiting", "at most")
    for phase in phases:
        table.add_row(
            f"{phase.refiner_split:g}",
            f"{phase.bases} : {phase.refiners}",
            f"{phase.split_after_seconds:.0f} s",
            f"{phase.busy_share:.1%}",
            f"{phase.latents_waiting:g}",
            str(phase.latents_waiting_most),
        )
    Console().print(table)


def _phase(farm: Farm, share: float, seconds: int, steps: int) -> Phase:
    """Render with this handover for so long."""
    # More than can be done, and each phase's before what the last one left.
    job = farm.submit(
        ["a red fox in the snow"],
        images_per_prompt=10_000,
        batch_size=4,
        size="128x128",
        steps=steps,
        refiner_split=share,
        priority=50 + round(10 * (1 - share)),
    )
    began = time.monotonic()
    busy, total, latents = 0, 0, []
    split: tuple[int, int] = (0, 0)
    split_at = began
    for _ in track(range(seconds), f"handover at {share:g}", console=Console(stderr=True)):
        workers = [worker for worker in farm.workers() if worker["alive"]]
        stages = Counter(stage for worker in workers for stage in worker["stages"])
        if split != (stages["base"], stages["refiner"]):
            split, split_at = (stages["base"], stages["refiner"]), time.monotonic()
        total += len(workers)
        busy += sum(bool(worker["batches"]) for worker in workers)
        waiting = {queue["stage"]: queue["waiting"] for queue in farm.queues()}
        latents.append(waiting.get("refiner", 0))
        time.sleep(max(0.0, began + len(latents) - time.monotonic()))
    job.cancel()
    return Phase(share, seconds, *split, split_at - began, busy / total, statistics.median(latents), max(latents))


if __name__ == "__main__":
    main()
