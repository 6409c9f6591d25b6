"""Watching and steering jobs in a real browser: everything comes by itself."""

import re

import pytest
from playwright.sync_api import Browser, expect
from running import RunningFarm, wait_until
from visit import RENDER_MILLISECONDS, SIZES, visit

LONG = {"steps": 900, "batch_size": 2}


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_seen_while_it_is_denoised(farm: RunningFarm, browser: Browser, size: str) -> None:
    job_id = farm.client.submit(["a slow fox"], **LONG, size="512x512", images_per_prompt=4, seed=1).id
    with visit(browser, farm, size) as (page, watch):
        page.goto(f"/jobs/{job_id}")
        # Only what is in sight is fetched.
        page.locator(".tile").first.scroll_into_view_if_needed()
        preview = page.locator(".tile.pending .preview").first
        expect(preview).to_be_visible(timeout=RENDER_MILLISECONDS)
        first = preview.get_attribute("src")
        # The next look brings a newer one.
        expect(preview).not_to_have_attribute("src", first or "")
        expect(page.locator(".renderings")).to_contain_text(re.compile(r"cpu.*step \d+ of \d+", re.DOTALL))
        expect(page.get_by_role("progressbar", name="base stage")).to_be_visible()
        # Either batch may be the first to be rendered.
        page.locator(".tile.pending a", has=page.locator(".preview")).first.click()
        expect(page.locator("[data-preview] .preview")).to_be_visible(timeout=RENDER_MILLISECONDS)
        watch.check()
    farm.client.job(job_id).cancel()


def test_jobs_are_paused_resumed_and_cancelled_by_hand(farm: RunningFarm, browser: Browser) -> None:
    first, second = (farm.client.submit([name], **LONG, images_per_prompt=20, name=name).id for name in ("one", "two"))
    with visit(browser, farm) as (page, watch):
        page.goto("/")
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        page.get_by_label(f"Select job {first}").check()
        page.get_by_label(f"Select job {second}").check()
        # The list goes on living, and keeps what was ticked.
        third = farm.client.submit(["three"], **LONG, name="three").id
        expect(page.locator(f"#job-{third}")).to_be_visible()
        expect(page.get_by_label(f"Select job {first}")).to_be_checked()
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("status").first).to_contain_text("Paused")
        assert farm.job(first)["paused"]
        assert farm.job(second)["paused"]
        assert not farm.job(third)["paused"]
        farm.client.job(third).cancel()

        page.goto(f"/jobs/{first}")
        with page.expect_navigation():
            page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        page.locator("summary", has_text="Change").click()
        page.get_by_label("Priority").fill("90")
        page.get_by_role("button", name="Set", exact=True).click()
        wait_until(lambda: farm.job(first)["priority"] == 90, "the new priority")
        # Somebody else pauses it: the buttons follow without a reload.
        farm.client.job(first).pause()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        page.get_by_role("button", name="Cancel job").click()
        expect(page.locator("#live .badge")).to_have_text("cancelled")
        expect(page.get_by_role("button", name="Cancel job")).to_be_hidden()
        watch.check()
    farm.client.job(second).cancel()


def test_failures_are_told_by_cause_and_retried(farm: RunningFarm, browser: Browser) -> None:
    broken = '("a fox", "an owl").blend(0.5)'
    job_id = farm.client.submit(["a fox", broken, broken], prompt_syntax="compel", steps=2, refiner_split=None).id
    farm.await_job(job_id)
    with visit(browser, farm) as (page, watch):
        page.goto(f"/jobs/{job_id}")
        expect(page.locator(".failures .notice")).to_have_count(1)
        watch.check()
        page.set_viewport_size(SIZES["phone"])
        page.locator("summary", has_text="Change").click()
        watch.check()
        page.set_viewport_size(SIZES["desktop"])
        expect(page.locator(".failures")).to_contain_text("A prompt could not be read")
        expect(page.locator(".failures")).to_contain_text("Mend the prompt")
        page.get_by_role("button", name="Retry 2 failed").click()
        expect(page.get_by_role("status").first).to_contain_text("Retried")
        wait_until(lambda: farm.job(job_id)["state"] == "failed", "the second failure")
        expect(page.get_by_role("button", name="Retry 2 failed")).to_be_visible()
        watch.check()


def test_a_page_without_a_stream_asks_by_itself(farm: RunningFarm, browser: Browser) -> None:
    job_id = farm.client.submit(["a fox"], **LONG, name="asked for").id
    with visit(browser, farm) as (page, _watch):
        page.route("**/events*", lambda route: route.fulfill(status=503, body="no place"))
        page.goto(f"/jobs/{job_id}")
        farm.client.job(job_id).cancel()
        expect(page.locator("#live .badge")).to_have_text("cancelled")
