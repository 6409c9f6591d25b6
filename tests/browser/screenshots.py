"""Makes the pictures of docs/img: `make screenshots`.

A farm of its own renders real jobs with the tiny pipeline; a browser visits its pages, some in the dark, some on a
phone, while something is going on.
"""

import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "browser")]
# The workers share the machine with the browser.
os.environ["OMP_NUM_THREADS"] = "1"

from chromium import launch
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.progress import track
from running import RunningFarm, running_farm, wait_until
from visit import SIZES as VISITS

import migrations
from farm import embedded
from farm.database import open_database
from farm.settings import Settings

IMAGES = ROOT / "docs" / "img"
RENDER_MILLISECONDS = 120_000
PROMPTS = [
    "a red fox in the snow",
    "an owl on a branch at night, watercolour",
    "a lighthouse in a storm, oil painting",
    "a greenhouse full of orange trees",
    "a robot repairing a bicycle",
    "a castle of blue glass",
    "portrait of an old fisherman",
    "a small boat on a calm river, mist",
]


def jobs(page: Page) -> None:
    page.goto("/")
    page.locator(".job-pick").nth(1).check()


def watching(page: Page) -> None:
    page.goto("/jobs/3")
    if page.viewport_size == SIZES["phone"]:
        # Only what is in sight is fetched.
        page.locator(".tile").first.evaluate("tile => tile.scrollIntoView({ block: 'end' })")
    page.locator(".tile.pending .preview").first.wait_for(timeout=RENDER_MILLISECONDS)


def gallery(page: Page) -> None:
    page.goto("/jobs/1#pictures")
    page.locator(".tile img").nth(5).evaluate("image => image.decode()")


def picture(page: Page) -> None:
    page.goto("/jobs/1/images/3")
    page.locator(".frame img").first.evaluate("image => image.decode()")


def compare(page: Page) -> None:
    page.goto("/compare?pictures=1:0,1:8,1:16")
    page.locator("img").last.evaluate("image => image.decode()")


def grid(page: Page) -> None:
    page.goto("/jobs/2/grid")
    page.locator("table img, .grid img, img").last.evaluate("image => image.decode()")


def form(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_label("One prompt per line").fill(
        "prompt,steps,size,guidance_scale\na castle of {blue|green} glass,40,1024x768,5\nan owl at night,thirty,1024x1024,7\n"
        "two foxes,30,1024x1000,6\n"
    )
    page.locator(".preview [aria-invalid]").first.wait_for()
    page.get_by_label("One prompt per line").scroll_into_view_if_needed()


def workers(page: Page) -> None:
    page.goto("/workers")


def queues(page: Page) -> None:
    page.goto("/queues")


SHOTS: tuple[tuple[str, str, str, Callable[[Page], None]], ...] = (
    ("jobs", "desktop", "light", jobs),
    ("job", "tall", "light", watching),
    ("gallery", "desktop", "dark", gallery),
    ("picture", "desktop", "light", picture),
    ("compare", "desktop", "dark", compare),
    ("grid", "desktop", "light", grid),
    ("form", "tall", "light", form),
    ("workers", "desktop", "dark", workers),
    ("queues", "desktop", "light", queues),
    ("phone", "phone", "light", watching),
)


SIZES = {**VISITS, "tall": {"width": 1280, "height": 1080}}


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        # Others may look in: the embedded Postgres runs as a user of its own when started by root.
        path.chmod(0o755)
        with embedded.postgres(path / "postgres") as database, embedded.valkey(path / "valkey") as broker:
            settings = Settings(data=path / "data", database_url=database, broker_url=broker, pipeline="tiny", port=0)
            engine = open_database(settings)
            migrations.upgrade(engine)
            engine.dispose()
            with running_farm(settings, path, ["--device", "cpu"]) as farm:
                render(farm)
                shoot(farm)


def render(farm: RunningFarm) -> None:
    """Three jobs: one done, one swept over two parameters, and one that goes on while the pictures are taken."""
    animals = farm.client.submit(PROMPTS, name="Animals and boats", images_per_prompt=3, seed=42, steps=12)
    sweep = {"guidance_scale": [1.5, 3, 5, 8], "num_inference_steps": [4, 8, 16]}
    swept = farm.client.submit([PROMPTS[2]], name="Guidance against steps", sweep=sweep, seed=7)
    for job in (animals, swept):
        farm.await_job(job.id)
    long = farm.client.submit(
        PROMPTS, name="Night run", images_per_prompt=6, seed=1, steps=500, batch_size=4, priority=40
    )
    farm.client.submit(PROMPTS[:4], name="Tomorrow's boards", images_per_prompt=500, seed=9, priority=20)
    wait_until(lambda: farm.job(long.id)["state"] == "running", "the third job")


def shoot(farm: RunningFarm) -> None:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name, size, scheme, prepare in track(SHOTS, "screenshots"):
            context = browser.new_context(
                viewport=SIZES[size],
                base_url=farm.url,
                color_scheme=scheme,  # type: ignore[arg-type]
                device_scale_factor=2 if size == "phone" else 1,
            )
            page = context.new_page()
            page.goto(farm.login_link())
            prepare(page)
            page.wait_for_load_state("load")
            shot = Image.open(io.BytesIO(page.screenshot()))
            shot.save(IMAGES / f"{name}.webp", quality=82, method=6)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
