"""Logging in, tokens, users and webhooks, in a real browser."""

import httpx
import pytest
from playwright.sync_api import Browser, expect
from receiver import receiver, status
from running import RunningFarm, wait_until
from standardwebhooks import Webhook as Signature
from visit import SIZES, Watch, visit

from farm import people
from farm.database import open_database
from farm.roles import Role

PASSWORD = "correct horse battery"


@pytest.mark.parametrize("size", SIZES)
def test_logging_in_and_a_token_from_making_to_revoking(farm: RunningFarm, browser: Browser, size: str) -> None:
    name = f"ana-{size}"
    engine = open_database(farm.settings)
    people.add_user(engine, name, Role.SUBMITTER, PASSWORD)
    engine.dispose()
    context = browser.new_context(viewport=SIZES[size], base_url=farm.url)
    page = context.new_page()
    watch = Watch(page, farm.url)
    page.goto("/activity")
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type("a guess, a guess")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This name and password do not match.")
    # The name is kept, and the password is where one writes next.
    expect(page.get_by_label("User name")).to_have_value(name)
    expect(page.get_by_label("Password")).to_be_focused()
    # Chromium itself logs the status 403 of the page.
    assert all("403" in error for error in watch.errors)
    watch.errors.clear()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Activity")).to_be_visible()
    expect(page.locator(".activities li").first).to_contain_text(f"{name} logged in")
    watch.check()

    page.locator(".menu summary").click()
    expect(page.get_by_role("link", name="People")).to_have_count(0)
    page.get_by_role("link", name="Account").click()
    page.get_by_label("What the token is for").fill("nightly script")
    page.get_by_role("button", name="Make a token").click()
    expect(page.get_by_text("it is not shown again")).to_be_visible()
    token = page.get_by_label("New token").input_value()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == token
    watch.check()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{farm.url}/api/v1/me", headers=headers, timeout=60).json()["name"] == name

    page.goto("/account")
    assert token not in page.content()
    expect(page.get_by_text("last used")).to_be_visible()
    page.get_by_role("button", name="Revoke nightly script").click()
    expect(page.get_by_role("status")).to_contain_text("The token is revoked")
    expect(page.get_by_text("nightly script", exact=True)).to_have_count(0)
    assert httpx.get(f"{farm.url}/api/v1/me", headers=headers, timeout=60).status_code == 401
    watch.check()
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    context.close()


@pytest.mark.parametrize("size", SIZES)
def test_an_administrator_makes_a_viewer_who_only_looks(farm: RunningFarm, browser: Browser, size: str) -> None:
    name = f"vera-{size}"
    with visit(browser, farm, size) as (page, watch):
        page.locator(".menu summary").click()
        page.get_by_role("link", name="People").click()
        page.get_by_label("User name").fill(name)
        page.get_by_label("Role", exact=True).select_option("viewer")
        page.get_by_role("button", name="Add", exact=True).click()
        expect(page.get_by_text(f"Hand this link to {name}.")).to_be_visible()
        link = page.get_by_label("Log-in link", exact=True).input_value()
        watch.check()

        context = browser.new_context(viewport=SIZES[size], base_url=farm.url)
        hers = context.new_page()
        hers.goto(link)
        expect(hers.get_by_role("heading", name="Jobs")).to_be_visible()
        expect(hers.get_by_role("banner").get_by_role("link", name="New job")).to_have_count(0)
        hers.goto("/account")
        hers.get_by_label("New password", exact=True).fill(PASSWORD)
        hers.get_by_label("New password, again").fill(PASSWORD)
        hers.get_by_role("button", name="Set the password").click()
        expect(hers.get_by_role("status")).to_contain_text("Your password is changed")

        page.goto("/people")
        page.get_by_label(f"Role of {name}").select_option("submitter")
        page.get_by_role("button", name=f"Give role to {name}").click()
        expect(page.locator(".people li", has_text=name).locator(".badge")).to_have_text("submitter")
        hers.goto("/")
        expect(hers.get_by_role("banner").get_by_role("link", name="New job")).to_be_visible()
        page.get_by_role("button", name=f"Lock out {name}").click()
        expect(page.locator(".people li", has_text=name).locator(".badge")).to_have_text("locked out")
        hers.goto("/")
        expect(hers.get_by_role("heading", name="Log in")).to_be_visible()
        context.close()

        # The log comes by itself.
        page.goto("/activity")
        httpx.put(
            f"{farm.url}/api/v1/word-lists/{name}",
            content="fox",
            headers={"Authorization": f"Bearer {farm.token}"},
            timeout=60,
        )
        expect(page.locator(".activities li").first).to_contain_text(f"saved the word list “{name}”")
        page.get_by_label("What").select_option("made a user")
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".activities li").first).to_contain_text(f"made the user {name}, viewer")
        watch.check()


@pytest.mark.parametrize("size", SIZES)
def test_a_webhook_from_making_to_removing_and_the_job_that_it_told_of(
    farm: RunningFarm, browser: Browser, size: str
) -> None:
    with receiver(status(500)) as server, visit(browser, farm, size) as (page, watch):
        page.locator(".menu summary").click()
        page.get_by_role("link", name="Webhooks").click()
        page.get_by_label("Address").fill(server.url)
        for kind in ("job.started", "image.completed"):
            page.get_by_label(kind).uncheck()
        page.get_by_role("button", name="Make a webhook").click()
        expect(page.get_by_role("status")).to_contain_text("The webhook is made")
        watch.check()
        page.get_by_text("Show it").click()
        secret = page.get_by_label("Secret of this webhook").input_value()

        job = farm.client.submit(["a fox that is told of"], steps=2)
        farm.await_job(job.id)
        server.wait_for(2)
        expect(page.get_by_text("answered 500")).to_have_count(0)
        # Its page does not ask by itself.
        wait_until(lambda: page.reload() and page.get_by_text("answered 500").count() >= 2, "the attempts")
        watch.check()
        server.answer = status(204)
        known = len(server.received)
        page.get_by_role("button", name="Send again job.completed").click()
        expect(page.get_by_role("status")).to_contain_text("sent again")
        told = [Signature(secret).verify(one.body, one.headers) for one in server.wait_for(known + 1)]
        (ended,) = [one["data"] for one in told if one["type"] == "job.completed"][-1:]
        assert (ended["job_id"], ended["job"]["state"]) == (job.id, "completed")
        wait_until(lambda: page.reload() and page.locator(".badge.completed").count() > 0, "the delivery")

        page.get_by_role("link", name=f"job {job.id}").first.click()
        page.get_by_role("link", name="Delete").click()
        expect(page.get_by_text("There is no way back")).to_be_visible()
        watch.check()
        page.get_by_role("button", name="Delete for good").click()
        expect(page.get_by_role("status")).to_have_text(f"Deleted: job {job.id}.")
        assert httpx.get(job.url, headers={"Authorization": f"Bearer {farm.token}"}, timeout=60).status_code == 404
        wait_until(lambda: any(b"job.deleted" in one.body for one in server.received), "the last message")

        page.goto("/webhooks")
        page.get_by_role("link", name=server.url).click()
        page.get_by_text("Remove", exact=True).click()
        page.get_by_role("button", name="Remove for good").click()
        expect(page.get_by_role("status")).to_have_text("The webhook is removed.")
        watch.check()
