"""Every page of the application, looked through by axe-core for what keeps people out; and all of it without JavaScript."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from running import RunningFarm
from visit import SIZES, visit

from dashboard.app import create_app
from dashboard.context import EXTENSION
from farm import claims, people, transitions
from farm.database import open_database
from farm.roles import Role
from farm.states import Stage

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
#: What addresses that are good for a while show afterwards.
PAGES_OF_ERRORS = {"login.enter": 403, "signed.picture": 404}
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def paths(farm: RunningFarm) -> list[str]:
    """Where all pages are, with a job that has pictures, and one of which a picture failed."""
    done = farm.client.submit(["a red fox <b>in the snow</b>", "an owl"], steps=2, images_per_prompt=2).id
    farm.await_job(done)
    with httpx.Client(
        base_url=f"{farm.url}/api/v1", headers={"Authorization": f"Bearer {farm.token}"}, timeout=60
    ) as client:
        assert client.post("/tokens", json={"name": "nightly"}).status_code == 201
        hook = client.post("/webhooks", json={"url": "https://hooks.invalid/farm", "all_jobs": True}).json()
        assert client.post(f"/webhooks/{hook['id']}/test").status_code == 202
    known = {"job_id": done, "index": 0, "webhook_id": hook["id"]}
    return [*pages_of(farm, known), f"/jobs/{fail_one(farm)}", "/nowhere"]


def pages_of(farm: RunningFarm, values: dict[str, Any]) -> list[str]:
    """Every GET route that answers with a whole HTML page. A route that takes something new fails here: say what."""
    app = create_app(farm.settings)
    app.extensions[EXTENSION].engine.dispose()
    found = []
    # A link that was used before has a page of its own.
    known = {"token": "spent", "name": "unknown", "ref": "unknown", "ending": "png", "owner": "unknown", **values}
    with httpx.Client(base_url=farm.url, headers={"Authorization": f"Bearer {farm.token}"}, timeout=60) as client:
        for rule in app.url_map.iter_rules():
            if "GET" not in (rule.methods or ()) or rule.endpoint == "static":
                continue
            assert rule.arguments <= known.keys(), f"which {rule.arguments - known.keys()} shall be visited?"
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: str(known[match[1]]), rule.rule)
            if rule.endpoint == "compare.show":
                path += f"?pictures={values['job_id']}:0,{values['job_id']}:1"
            if rule.endpoint == "pages.confirm_deletion":
                path += f"?job={values['job_id']}"
            # Streams of events never end: what they are stands in their headers.
            with client.stream("GET", path) as response:
                is_page = response.headers.get("content-type", "").startswith("text/html")
                if is_page and response.read().startswith(b"<!doctype html>"):
                    assert response.status_code == PAGES_OF_ERRORS.get(rule.endpoint, 200), path
                    found.append(path)
    return found


def fail_one(farm: RunningFarm) -> int:
    """A job of a pipeline that no worker serves, with one image that failed."""
    job_id: int = farm.client.submit(["cursed"], pipeline="sdxl-1.0").id
    engine = open_database(farm.settings)
    (sent,) = transitions.queue_ready_batches(engine, {job_id: 1}, Stage.BASE)
    held = claims.claim(engine, sent.batch_id, sent.attempt, Stage.BASE, "w", 30)
    assert held is not None
    transitions.fail_attempt(engine, held.batch_id, held.attempt, "out of memory", max_failures=1)
    engine.dispose()
    return job_id


def look_through(page: Page, path: str) -> list[str]:
    """What axe-core finds wrong on the page as it is now."""
    # Exactly what is there: nothing may be on its way from one colour to another.
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")
    results = Axe().run(page, options={"runOnly": STANDARDS, "resultTypes": ["violations"]})
    return [
        f"{path}: {violation['id']}: {node['html'][:200]}\n  {node['failureSummary']}"
        for violation in results.response["violations"]
        for node in violation["nodes"]
    ]


def test_axe_would_find_something(farm: RunningFarm, browser: Browser) -> None:
    with visit(browser, farm, bypass_csp=True) as (page, _):
        page.goto("/account")
        page.add_style_tag(content=".quiet { color: #999 !important; background: #aaa !important }")
        page.locator("h1").evaluate("it => it.append(document.createElement('input'), document.createElement('img'))")
        found = "\n".join(look_through(page, "spoilt"))
    assert all(word in found for word in ("color-contrast", "image-alt", "label"))


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_axe_finds_nothing(farm: RunningFarm, browser: Browser, paths: list[str], size: str, scheme: str) -> None:
    assert {"/", "/jobs/new", "/workers", "/account", "/people", "/activity", "/login", "/enter/spent"} <= {*paths}
    found = []
    # axe-core is a script that the pages' own policy would refuse.
    with visit(browser, farm, size, color_scheme=scheme, bypass_csp=True) as (page, _):
        for path in paths:
            page.goto(path)
            # What is folded is there for those who unfold it.
            page.evaluate("document.querySelectorAll('details:not(.menu)').forEach(it => { it.open = true })")
            found += look_through(page, path)
        page.locator(".menu summary").click()
        found += look_through(page, "the menu")
    assert found == [], "\n".join(found)


def test_axe_finds_nothing_for_strangers_and_after_mistakes(farm: RunningFarm, browser: Browser) -> None:
    found = []
    context = browser.new_context(viewport=SIZES["phone"], base_url=farm.url, bypass_csp=True)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("User name").fill("nobody")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found += look_through(page, "login")
    context.close()

    mistakes: dict[str, Callable[[Page], None]] = {"/jobs/new": submit_nothing, "/account": mistype_password}
    with visit(browser, farm, "phone", bypass_csp=True) as (page, _):
        for path, make_mistake in mistakes.items():
            page.goto(path)
            make_mistake(page)
            expect(page.get_by_role("alert").first).to_be_visible()
            found += look_through(page, path)
    assert found == [], "\n".join(found)


def submit_nothing(page: Page) -> None:
    page.locator("form").evaluate_all("forms => forms.forEach(form => { form.noValidate = true })")
    page.get_by_role("button", name="Submit").click()


def mistype_password(page: Page) -> None:
    page.get_by_label("New password", exact=True).fill(PASSWORD)
    page.get_by_label("New password, again").fill("another battery")
    page.get_by_role("button", name="Set the password").click()


@pytest.mark.parametrize("size", SIZES)
def test_all_works_without_javascript(farm: RunningFarm, browser: Browser, size: str) -> None:
    engine = open_database(farm.settings)
    name = f"plain-{size}"
    people.add_user(engine, name, Role.SUBMITTER, PASSWORD)
    engine.dispose()
    context = browser.new_context(viewport=SIZES[size], base_url=farm.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs/new")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    # One arrives where one wanted to go.
    page.get_by_label("One prompt per line").fill("a plain fox")
    page.get_by_role("spinbutton", name="Steps").fill("2")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("a plain fox")
    farm.await_job(int(page.url.rpartition("/")[2]))
    page.reload()
    expect(page.locator(".tile.completed")).to_have_count(1)
    page.get_by_role("link", name="Picture 1").click()
    expect(page.get_by_role("link", name="Download")).to_be_visible()
    page.goto("/account")
    page.get_by_label("What the token is for").fill("curl")
    page.get_by_role("button", name="Make a token").click()
    token = page.get_by_label("New token").input_value()
    answer = httpx.get(f"{farm.url}/api/v1/me", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.json()["name"] == name
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    context.close()
