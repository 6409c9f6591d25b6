"""What operators do, in a real browser: drain and resume a worker that renders, look at queues and plots."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect
from running import RunningFarm, wait_until
from visit import RENDER_MILLISECONDS, SIZES, visit

JOB = {"steps": 4, "size": "64x64", "seed": 1}

#: Whether a canvas has pixels of this colour (a token of the design), near enough: a line of a minute has but a few.
HAS_COLOUR = """
(canvas, token) => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(token).trim();
  const wanted = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] > 200 && wanted.every((value, channel) => Math.abs(data[at + channel] - value) < 12)) found += 1;
  }
  return found > 4;
}
"""


def drawn(page: Page, plot: str, token: str) -> bool:
    canvas = page.locator(f"#{plot} canvas")
    expect(canvas).to_be_visible()
    # The browser paints in its own time.
    return bool(wait_until(lambda: canvas.evaluate(HAS_COLOUR, token), f"the colour {token} in {plot}", 20))


@pytest.mark.parametrize("size", SIZES)
def test_a_worker_is_drained_and_resumed_by_click(browser: Browser, farm: RunningFarm, size: str) -> None:
    with visit(browser, farm, size) as (page, watch):
        page.get_by_role("link", name="Operate").click()
        worker = page.locator(".worker").first
        expect(worker.locator(".badge")).to_have_text("idle", timeout=RENDER_MILLISECONDS)
        expect(worker.get_by_role("meter", name="Memory")).to_be_visible()
        watch.check()
        worker.get_by_role("button", name="Drain").click()
        expect(worker.locator(".badge")).to_have_text("drained")
        job_id = farm.client.submit(["waits"], **JOB).id
        page.get_by_role("link", name="Queues").click()
        expect(page.get_by_text("The only worker is drained: resume it.")).to_be_visible()
        expect(page.get_by_role("row", name="tiny base")).to_contain_text("1 batch")
        watch.check()
        assert farm.job(job_id)["state"] == "queued"

        page.get_by_role("link", name="Workers").click()
        # By keyboard, while the page renews itself.
        with page.expect_response("**/fragments/workers"):
            page.get_by_role("button", name="Resume").focus()
        expect(page.get_by_role("button", name="Resume")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Drain")).to_be_visible()
        assert farm.await_job(job_id)["state"] == "completed"
        page.get_by_role("link", name="Queues").click()
        expect(page.get_by_role("row", name="tiny base")).to_be_visible()
        expect(page.get_by_text("The only worker is drained")).to_have_count(0)
        watch.check()


def test_a_busy_worker_shows_its_job_and_step_by_itself(browser: Browser, farm: RunningFarm) -> None:
    with visit(browser, farm) as (page, watch):
        page.goto("/workers")
        job_id = farm.client.submit(["long"], steps=1000, images_per_prompt=20, seed=1).id
        try:
            # Two batches are in hand, of which one waits for the device.
            now = page.locator(".worker .now").filter(has_text=re.compile(r"step \d+ of \d+")).first
            expect(now).to_contain_text(f"Job {job_id}", timeout=RENDER_MILLISECONDS)
            expect(page.locator(".worker .badge").first).to_have_text("rendering")
            computing = page.get_by_role("meter", name="Computing").first
            expect(computing).not_to_have_attribute("aria-valuenow", "0", timeout=RENDER_MILLISECONDS)
        finally:
            farm.client.job(job_id).cancel()
        expect(page.locator(".worker .badge").first).to_have_text("idle", timeout=RENDER_MILLISECONDS)
        watch.check()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_drawn_and_their_range_is_switched(
    browser: Browser, farm: RunningFarm, size: str, scheme: str
) -> None:
    job_id = farm.client.submit(["a", "b"], **JOB).id
    assert farm.await_job(job_id)["state"] == "completed"
    with visit(browser, farm, size, color_scheme=scheme) as (page, watch):
        page.goto("/plots")
        assert drawn(page, "throughput", "--accent")
        assert drawn(page, "durations", "--accent")
        watch.check()
        with page.expect_response("**/api/v1/metrics?hours=24"):
            page.get_by_role("link", name="24 hours").click()
        expect(page.get_by_role("link", name="24 hours")).to_have_attribute("aria-current", "true")
        assert drawn(page, "throughput", "--accent")
        page.get_by_text("The same as a table").click()
        expect(page.locator(".numbers-table tbody tr")).to_have_count(24)
        watch.check()


def test_plots_follow_the_colours_of_the_page(browser: Browser, farm: RunningFarm) -> None:
    with visit(browser, farm, color_scheme="light") as (page, watch):
        assert farm.await_job(farm.client.submit(["a"], **JOB).id)["state"] == "completed"
        page.goto("/plots")
        assert drawn(page, "durations", "--accent")
        page.emulate_media(color_scheme="dark")
        assert drawn(page, "durations", "--accent")
        watch.check()


def test_without_javascript_everything_is_there(browser: Browser, farm: RunningFarm) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=farm.url)
    page = context.new_page()
    page.goto(farm.login_link())
    page.goto("/plots?hours=168")
    expect(page.locator("#plots")).to_be_hidden()
    page.get_by_text("The same as a table").click()
    expect(page.locator(".numbers-table tbody tr")).to_have_count(14)
    page.goto("/workers")
    page.get_by_role("button", name="Drain").click()
    expect(page.locator(".worker .badge").first).to_have_text("drained")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Drain")).to_be_visible()
    context.close()
