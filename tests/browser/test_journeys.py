"""From click to rendered picture, in a real browser against a running farm."""

import pytest
from playwright.sync_api import Browser, Page, expect
from running import RunningFarm
from visit import RENDER_MILLISECONDS, SIZES, Watch, visit


@pytest.mark.parametrize("size", SIZES)
def test_submit_watch_look_and_cancel(farm: RunningFarm, browser: Browser, size: str) -> None:
    for job in farm.client.jobs():
        # As on a farm that is new.
        assert job.has_ended
        job.delete()
    with visit(browser, farm, size) as (page, watch):
        submit_and_watch(page, watch)
        look(page, watch)
        cancel(page, watch, farm)
        refusal(page, watch)


def submit_and_watch(page: Page, watch: Watch) -> None:
    page.goto("/")
    expect(page.get_by_text("No job yet")).to_be_visible()
    page.get_by_role("banner").get_by_role("link", name="New job").click()
    page.get_by_label("One prompt per line").fill("a red fox\n<b>an owl</b>\n")
    page.get_by_label("Images per prompt").fill("6")
    page.get_by_role("spinbutton", name="Steps").fill("12")
    page.get_by_label("Seed of the first image").fill("42")
    watch.check()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("a red fox")
    # The page was loaded once: all that follows comes by itself.
    expect(page.locator(".tile.completed")).to_have_count(12, timeout=RENDER_MILLISECONDS)
    expect(page.locator(".badge")).to_have_text("completed")
    assert page.locator(".tile img").first.evaluate("async i => { await i.decode(); return i.naturalWidth }") == 256
    expect(page.get_by_text("<b>an owl</b>").first).to_be_visible()
    watch.check()


def look(page: Page, watch: Watch) -> None:
    page.locator(".tile a").nth(1).click()
    expect(page.get_by_text("2 of 12")).to_be_visible()
    assert page.locator(".picture img").evaluate("async i => { await i.decode(); return i.naturalWidth }") == 256
    expect(page.locator("dl")).to_contain_text("43")
    page.wait_for_load_state()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("3 of 12")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "000002_seed44.png"
    watch.check()
    page.get_by_role("link", name="Operate").click()
    expect(page.get_by_text("idle", exact=True)).to_be_visible()
    watch.check()


def cancel(page: Page, watch: Watch, farm: RunningFarm) -> None:
    job_id = farm.client.submit(["long"], steps=1000, images_per_prompt=20).id
    page.goto("/")
    # The list is live, too.
    expect(page.locator(".badge.running")).to_be_visible(timeout=RENDER_MILLISECONDS)
    page.locator("a.row").first.click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#live .badge")).to_have_text("cancelled")
    assert farm.job(job_id)["state"] == "cancelled"
    watch.check()


def refusal(page: Page, watch: Watch) -> None:
    page.goto("/jobs/new")
    page.get_by_label("One prompt per line").fill("kept")
    page.get_by_role("textbox", name="Size").fill("250x256")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("250 is not divisible by 8")
    expect(page.get_by_label("One prompt per line")).to_have_value("kept")
    # Chromium itself logs the status 422 of the page.
    assert all("422" in error for error in watch.errors)
