"""Renders the example prompts on an embedded farm: what `make demo` runs.

Starts `farm up`, submits a file through the Python client, watches, downloads, makes a contact sheet, and stops
what it started. The farm's data stays in .farm, so `farm up --data .farm` shows the job again.
"""

import subprocess
import sys
import time
from pathlib import Path

import httpx

from farm.embedded import free_port
from producer import Farm

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / ".farm"
OUTPUT = ROOT / "demo-output"
START_SECONDS = 120


def main() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # The demo's own pipeline on GPUs, too.
    command = [sys.executable, "-m", "farm.cli", "up", "--data", str(DATA), "--port", str(port), "--pipeline", "demo"]
    print(f"Starting an embedded farm on {url} ...")
    farm_up = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        await_farm(farm_up, url)
        render(url)
    finally:
        farm_up.terminate()
        farm_up.wait()
    print(
        "\nThe demo's farm is stopped. Its model has SDXL's architecture and knows a small world of up to three\n"
        "circles, squares, triangles, stars, rings and crosses in eleven colours.\nGo on:\n"
        "  .venv/bin/farm up --data .farm           the dashboard, with this job in it: http://127.0.0.1:8000\n"
        "  .venv/bin/farm submit examples/prompts.txt --images-per-prompt 4 --output pictures/\n"
        "  README.md, 'On real GPUs'                the real SDXL"
    )


def await_farm(farm_up: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until the farm answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).is_success:
                return
        except httpx.TransportError:
            # Nobody listens yet.
            pass
        if farm_up.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"The farm did not start; see {DATA}/logs.")
        time.sleep(0.2)


def render(url: str) -> None:
    """Submit, watch, download, and lay the pictures out on one sheet."""
    with Farm(url) as farm:
        job = farm.submit(file=ROOT / "examples" / "prompts.txt", name="demo", seed=42)
        print(f"Job {job.id}: {job.counts.total} images, dashboard {job.url}")
        job.wait(progress=True)
        for leftover in OUTPUT.glob("*.png"):
            leftover.unlink()
        pictures = job.download(OUTPUT, progress=True)
        if job.state != "completed":
            raise SystemExit(f"The job is {job.state}: {job.errors}")
        sheet = OUTPUT / "contact-sheet.png"
        job.grid().save(sheet)
    print(f"{len(pictures)} pictures and {sheet.name} are in {OUTPUT.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
