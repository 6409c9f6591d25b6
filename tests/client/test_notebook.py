"""What a notebook shows: cells run in IPython's own shell, in a running event loop, as Jupyter runs them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from running import RunningFarm

#: Runs cells, and prints what each displayed: MIME bundles, and whether they replaced what stood there.
SHELL = """
import asyncio, json, sys
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

shell = InteractiveShell.instance()

async def run(cell):
    with capture_output() as captured:
        result = await shell.run_cell_async(cell, store_history=True, transformed_cell=shell.transform_cell(cell))
    result.raise_error()
    return [
        {"data": output.data, "update": output.update, "place": (output.transient or {}).get("display_id")}
        for output in captured.outputs
    ]

async def main():
    return [await run(cell) for cell in json.load(sys.stdin)]

json.dump(asyncio.run(main()), sys.stdout, default=lambda data: data.hex())
"""

Output = dict[str, Any]


def cells(running: RunningFarm, *sources: str) -> list[list[Output]]:
    ran = subprocess.run(
        [sys.executable, "-c", SHELL],
        input=json.dumps(sources),
        env=running.environment | {"IPYTHONDIR": str(running.logs / "ipython")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: list[list[Output]] = json.loads(ran.stdout)
    return found


SUBMIT = """
from producer import AsyncFarm, Farm
farm = Farm()
job = farm.submit(
    [f"picture <b>{n}</b>" for n in range(3)], name="A <i>job</i>", batch_size=1, steps=150, size="128x128"
)
"""


def assert_one_live_card(outputs: list[Output]) -> None:
    """A card in one place, which changed until it showed the finished job with its pictures."""
    assert len(outputs) > 1
    assert [output["update"] for output in outputs] == [False] + [True] * (len(outputs) - 1)
    assert len({output["place"] for output in outputs}) == 1
    first, last = (outputs[place]["data"]["text/html"] for place in (0, -1))
    assert "A &lt;i&gt;job&lt;/i&gt;" in first
    assert "<i>" not in first
    assert "completed, 3 of 3 done" not in first
    assert "completed, 3 of 3 done" in last
    assert last.count("data:image/webp;base64,") == 3


def test_waiting_shows_a_card_that_lives(running: RunningFarm) -> None:
    submitted, waited, pictures = cells(running, SUBMIT, "job.wait();", "display(job.image(0))")
    assert submitted == []
    assert_one_live_card(waited)
    (picture,) = pictures
    assert bytes.fromhex(picture["data"]["image/png"]).startswith(b"\x89PNG")


def test_a_job_shows_itself_and_goes_on_living(running: RunningFarm) -> None:
    """The card changes from beside the cell that showed it."""
    shown = cells(running, SUBMIT, "display(job)\njob._live.result(120)")[1]
    assert_one_live_card(shown)


def test_async_cells_wait_too(running: RunningFarm) -> None:
    again = "remote = await AsyncFarm().job(job.id)\nawait remote.wait();"
    assert_one_live_card(cells(running, SUBMIT, again)[1])


def test_elsewhere_nothing_is_shown_unasked_and_nothing_stays_open(running: RunningFarm, tmp_path: Path) -> None:
    """Neither the farm nor its iterators are closed here, and warnings of what was left open would be errors."""
    code = (
        "import gc, sys\n"
        "from producer import Farm\n"
        "job = Farm().submit(['a', 'b'], steps=2, size='64x64', refiner_split=None)\n"
        "gc.collect()\n"
        "job.wait().download(sys.argv[1])\n"
        "print(next(job.images()).index, next(job.images(as_completed=True)).job_id == job.id)\n"
        "del job\n"
        "gc.collect()\n"
        "print([worker['pipeline'] for worker in Farm().workers()])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, tmp_path],
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "0 True\n['tiny']\n"
