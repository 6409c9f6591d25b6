"""Looking at what was rendered, in a real browser: gallery, keys, marks, search, comparison, grids, downloads."""

import io
import re
import zipfile
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect
from running import RunningFarm, wait_until
from visit import SIZES, visit

MANY = 100_000
PROMPTS = ["a red fox", "an owl, <b>=cmd|' /C calc'!A0</b> \u202egnp"]


@pytest.fixture(scope="module")
def sweep(farm: RunningFarm) -> int:
    """A job of two prompts over two axes, rendered."""
    fields = {"sweep": "guidance_scale: 3, 5; steps: 2, 3, 4", "seed": 5, "batch_size": 12}
    job_id = farm.client.submit(PROMPTS, **fields).id
    assert farm.await_job(job_id)["state"] == "completed"
    return job_id


@pytest.fixture(scope="module")
def many(farm: RunningFarm) -> int:
    """A finished job of very many rows; its pictures do not matter here, nor are there any."""
    with psycopg.connect(str(farm.settings.database_url)) as connection:
        (job_id,) = connection.execute(
            """INSERT INTO jobs (name, pipeline, spec, image_count, images_completed, images_failed, state, started_at, finished_at)
               VALUES ('many', 'tiny', '{}', %s, 0, %s, 'failed', now(), now()) RETURNING id""",
            (MANY, MANY),
        ).fetchone() or (0,)
        parameters = (
            '{"pipeline": "tiny", "width": 256, "height": 256, "num_inference_steps": 2, "guidance_scale": 5.0}'
        )
        (batch_id,) = connection.execute(
            """INSERT INTO batches (job_id, parameters, state, finished_at) VALUES (%s, %s, 'split', now()) RETURNING id""",
            (job_id, parameters),
        ).fetchone() or (0,)
        columns = 'job_id, "index", batch_id, prompt, seed, state, error, finished_at, rating'
        with connection.cursor().copy(f"COPY images ({columns}) FROM STDIN") as copy:
            for index in range(MANY):
                rating = 1 if index % 7 == 0 else 0
                copy.write_row(
                    (job_id, index, batch_id, f"no. {index}", index, "failed", "no device", "2026-01-01", rating)
                )
    return int(job_id)


def tile(page: Page, index: int) -> Any:
    return page.locator(f"#image-{index}")


def tiles_in_document(page: Page) -> int:
    return page.locator(".tile").count()


def ready(page: Page) -> None:
    """Wait until the gallery's script runs."""
    expect(page.get_by_role("group", name="Size of the tiles")).to_be_visible()


def focus(page: Page, index: int) -> None:
    ready(page)
    tile(page, index).locator("a").focus()


@pytest.mark.parametrize("size", SIZES)
def test_a_gallery_of_very_many_scrolls_jumps_and_stays_small(
    farm: RunningFarm, browser: Browser, many: int, size: str
) -> None:
    with visit(browser, farm, size) as (page, watch):
        page.goto(f"/jobs/{many}")
        expect(tile(page, 0)).to_be_visible()
        page.get_by_label("Go to picture").fill("57000")
        page.get_by_role("button", name="Go", exact=True).click()
        expect(tile(page, 56_999)).to_be_in_viewport()
        expect(tile(page, 56999).locator("a")).to_be_focused()
        assert tiles_in_document(page) < 1_000
        top = page.evaluate("scrollY")
        # Back and forth: what is scrolled away comes back, at the same place.
        page.mouse.move(200, 400)
        for direction in (1, -1):
            for _ in range(12):
                page.mouse.wheel(0, 900 * direction)
                page.wait_for_timeout(30)
        wait_until(lambda: abs(page.evaluate("scrollY") - top) < 2, "the place from before")
        expect(tile(page, 56_999)).to_be_in_viewport()
        assert tiles_in_document(page) < 1_000
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(tile(page, MANY - 1)).to_be_in_viewport()
        expect(page.locator(".tile").last).to_have_id(f"image-{MANY - 1}")
        assert tiles_in_document(page) < 1_000
        page.evaluate("scrollTo(0, 0)")
        expect(tile(page, 0)).to_be_attached()
        assert tiles_in_document(page) < 1_000
        # All numbers are there once, in order, without a gap.
        shown = page.eval_on_selector_all(".tile", "tiles => tiles.map(tile => Number(tile.id.slice(6)))")
        assert shown == list(range(shown[0], shown[0] + len(shown)))
        watch.check()


def test_rows_stay_aligned_wherever_the_window_begins(farm: RunningFarm, browser: Browser, many: int) -> None:
    with visit(browser, farm) as (page, watch):
        page.goto(f"/jobs/{many}")
        for size in ("small", "large", "medium"):
            page.get_by_role("group", name="Size of the tiles").get_by_role("button", name=size).click()
            columns = page.evaluate("getComputedStyle(gallery).gridTemplateColumns.split(' ').length")
            for number in (1_234, 99_999):
                page.get_by_label("Go to picture").fill(str(number))
                page.get_by_role("button", name="Go", exact=True).click()
                expect(tile(page, number - 1)).to_be_in_viewport()
                left = page.evaluate("Math.round(gallery.getBoundingClientRect().left)")
                at = [index for index in range(number - 12, number) if index % columns == 0]
                for index in at:
                    box = tile(page, index).bounding_box()
                    assert box is not None
                    assert round(box["x"]) == left
        watch.check()


def test_what_is_higher_than_a_browser_can_draw_is_scrolled_through(
    farm: RunningFarm, browser: Browser, many: int
) -> None:
    with visit(browser, farm, "phone") as (page, watch):
        page.goto(f"/jobs/{many}")
        ready(page)
        page.get_by_role("group", name="Size of the tiles").get_by_role("button", name="large").click()
        assert page.evaluate("document.body.scrollHeight") < 17_000_000
        shown = "[...document.querySelectorAll('.tile')].map(tile => Number(tile.id.slice(6)))"
        last = page.evaluate(f"Math.max(...{shown})")
        for _ in range(12):
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            # The page hears of it with its next frame, and then fetches what is to be seen.
            wait_until(lambda before=last: page.evaluate(f"Math.max(...{shown})") > before, "tiles further down")
            expect(page.locator("#gallery[aria-busy]")).to_have_count(0)
            numbers = page.evaluate(shown)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            last = numbers[-1]
            if last == MANY - 1:
                break
        assert last == MANY - 1
        watch.check()


def test_a_filter_of_very_many_is_walked_to_its_end(farm: RunningFarm, browser: Browser, many: int) -> None:
    with visit(browser, farm) as (page, watch):
        page.goto(f"/jobs/{many}?mark=starred")
        expect(tile(page, 7)).to_be_visible()
        wait_until(lambda: page.evaluate("parseFloat(gallery.style.paddingBottom) > 100000"), "the whole height")
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(tile(page, (MANY - 1) // 7 * 7)).to_be_in_viewport()
        page.goto(f"/jobs/{many}?mark=starred&at=50001")
        expect(tile(page, 50_001 // 7 * 7 + 7)).to_be_in_viewport()
        assert tiles_in_document(page) < 1_000
        watch.check()


def test_back_from_a_picture_is_where_one_was(farm: RunningFarm, browser: Browser, many: int) -> None:
    with visit(browser, farm) as (page, watch):
        page.goto(f"/jobs/{many}?at=43210")
        tile(page, 43_210).locator("a").click()
        expect(page.get_by_text("43\u202f211 of 100\u202f000")).to_be_visible()
        # Keys are listened to by scripts, which come after what is seen.
        page.wait_for_load_state()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_text("43\u202f212 of 100\u202f000")).to_be_visible()
        page.wait_for_load_state()
        page.keyboard.press("Escape")
        expect(tile(page, 43_211)).to_be_in_viewport()
        expect(tile(page, 43211).locator("a")).to_be_focused()
        page.go_back()
        page.go_back()
        page.go_back()
        expect(tile(page, 43_210)).to_be_in_viewport()
        watch.check()


def test_keys_walk_star_reject_and_select(farm: RunningFarm, browser: Browser, sweep: int) -> None:
    with visit(browser, farm) as (page, watch):
        page.goto(f"/jobs/{sweep}")
        focus(page, 0)
        columns = page.evaluate("getComputedStyle(gallery).gridTemplateColumns.split(' ').length")
        for key, index in (
            ("ArrowRight", 1),
            ("ArrowDown", 1 + columns),
            ("ArrowUp", 1),
            ("ArrowLeft", 0),
            ("End", 11),
            ("Home", 0),
        ):
            page.keyboard.press(key)
            expect(tile(page, index).locator("a")).to_be_focused()
        page.keyboard.press("s")
        expect(tile(page, 0)).to_have_attribute("data-rating", "1")
        page.keyboard.press("x")
        expect(tile(page, 0)).to_have_attribute("data-rating", "-1")
        page.keyboard.press("x")
        expect(tile(page, 0)).to_have_attribute("data-rating", "0")
        page.keyboard.press("s")
        expect(tile(page, 0)).to_have_attribute("data-rating", "1")
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+Space")
        expect(page.locator("#picked")).to_have_text("3 pictures selected")
        page.keyboard.press("Escape")
        expect(page.locator("#picks")).to_be_hidden()
        page.keyboard.press("Enter")
        expect(page.get_by_text("3 of 12")).to_be_visible()
        assert farm.job(sweep)["id"] == sweep
        watch.check()
    images = list(farm.images(sweep))
    assert [image["rating"] for image in images] == [1, *[0] * 11]


@pytest.mark.parametrize("size", SIZES)
def test_from_selection_to_the_opened_zip(farm: RunningFarm, browser: Browser, sweep: int, size: str) -> None:
    with visit(browser, farm, size) as (page, watch):
        page.goto(f"/jobs/{sweep}")
        ready(page)
        for index in (1, 4, 7):
            tile(page, index).locator(".pick").click()
        expect(page.locator("#picked")).to_have_text("3 pictures selected")
        page.get_by_label("Tags, with commas between them").fill(f"cover, {size}")
        page.get_by_role("button", name="Add tags").click()
        expect(tile(page, 4).locator(".tags")).to_contain_text(size)
        expect(page.locator("#picked")).to_have_text("3 pictures selected")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download ZIP").click()
        archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
        assert archive.testzip() is None
        images = [image for image in farm.images(sweep) if image["index"] in (1, 4, 7)]
        assert archive.namelist() == [*(image["download_name"] for image in images), "manifest.csv", "manifest.jsonl"]
        for image in images:
            assert archive.read(image["download_name"]) == farm.client.request("GET", image["file_url"]).content
        assert all(size in image["tags"] for image in images)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download all").click()
        whole = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
        assert len(whole.namelist()) == 14
        watch.check()


@pytest.mark.parametrize("size", SIZES)
def test_search_in_a_job_and_over_all(farm: RunningFarm, browser: Browser, sweep: int, size: str) -> None:
    with visit(browser, farm, size) as (page, watch):
        page.goto(f"/jobs/{sweep}")
        page.get_by_text("Filter and search").click()
        page.get_by_label("Words of the prompt").fill("owl")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator(".tile")).to_have_count(6)
        assert "q=owl" in page.url
        expect(page.locator(".tile").first).to_contain_text("<b>=cmd")
        focus(page, 6)
        page.keyboard.press("Enter")
        expect(page.get_by_text("7 of 12, filtered")).to_be_visible()
        expect(page.get_by_role("link", name="Previous")).to_have_count(0)
        page.get_by_role("link", name="Pictures", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Pictures")
        page.get_by_text("Filter and search").click()
        page.get_by_label("Words of the prompt").fill("fox")
        page.get_by_label("State").select_option("completed")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator(".tile")).to_have_count(6)
        ready(page)
        page.locator(".tile a").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("s")
        expect(page.locator(".tile").nth(1)).to_have_attribute("data-rating", "1")
        page.keyboard.press("s")
        expect(page.locator(".tile").nth(1)).to_have_attribute("data-rating", "0")
        watch.check()


@pytest.mark.parametrize("size", SIZES)
def test_comparing_moves_all_and_tells_what_differs(farm: RunningFarm, browser: Browser, sweep: int, size: str) -> None:
    with visit(browser, farm, size) as (page, watch):
        page.goto(f"/jobs/{sweep}")
        ready(page)
        tile(page, 0).locator(".pick").click()
        expect(page.get_by_role("button", name="Compare")).to_be_disabled()
        tile(page, 3).locator(".pick").click()
        page.get_by_role("button", name="Compare").click()
        expect(page).to_have_url(re.compile(rf"/compare\?pictures={sweep}%3A0%2C{sweep}%3A3"))
        expect(page.locator("table.differing tbody tr")).to_have_count(1)
        expect(page.locator("table.differing")).to_contain_text("guidance_scale")
        # Keys are listened to by scripts, which come after what is seen.
        page.wait_for_load_state()
        page.keyboard.press("+")
        page.locator(".zoom").first.hover()
        page.mouse.wheel(0, -300)
        transforms = page.eval_on_selector_all(".zoom img", "images => images.map(image => image.style.transform)")
        assert len(transforms) == 2
        assert transforms[0] == transforms[1]
        assert "scale(1)" not in transforms[0]
        box = page.locator(".zoom").last.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 80, box["y"] + 80)
        page.mouse.down()
        page.mouse.move(box["x"] + 110, box["y"] + 95, steps=5)
        page.mouse.up()
        moved = page.eval_on_selector_all(".zoom img", "images => images.map(image => image.style.transform)")
        assert moved[0] == moved[1] != transforms[0]
        watch.check()


def test_the_viewer_zooms_marks_and_says_how_to_render_again(farm: RunningFarm, browser: Browser, sweep: int) -> None:
    with visit(browser, farm) as (page, watch):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(f"/jobs/{sweep}/images/5")
        scale = "new DOMMatrix(getComputedStyle(document.querySelector('.zoom img')).transform).a"
        page.keyboard.press("+")
        assert page.evaluate(scale) == pytest.approx(1.25)
        page.keyboard.press("-")
        assert page.evaluate(scale) == pytest.approx(1)
        page.locator(".zoom").hover()
        page.mouse.wheel(0, -400)
        assert page.evaluate(scale) > 2
        page.keyboard.press("0")
        assert page.evaluate(scale) == pytest.approx(1)
        page.get_by_role("button", name="100 %").click()
        expect(page.locator("#zoom-level")).to_have_text("100 %")
        for pressed in ("true", "false"):
            # A mark is a form that brings the page anew, and with it the keys.
            with page.expect_navigation():
                page.keyboard.press("x")
            expect(page.get_by_role("button", name="Reject")).to_have_attribute("aria-pressed", pressed)
        page.get_by_label("Tags", exact=True).fill("from viewer")
        with page.expect_navigation():
            page.get_by_role("button", name="Save tags").click()
        expect(page.get_by_label("Tags", exact=True)).to_have_value("from viewer")
        page.get_by_text("Render this picture again").click()
        page.get_by_role("button", name="Copy as command").click()
        expect(page.get_by_text("Copied.")).to_be_visible()
        command = page.evaluate("navigator.clipboard.readText()")
        assert command.startswith("farm submit '--prompt=a red fox'")
        again = page.get_by_role("link", name="Submit again with changes")
        expect(again).to_have_attribute("href", f"/jobs/new?from_job={sweep}&image=5")
        watch.check()


@pytest.mark.parametrize("size", SIZES)
def test_a_sweep_as_a_grid(farm: RunningFarm, browser: Browser, sweep: int, size: str) -> None:
    with visit(browser, farm, size) as (page, watch):
        page.goto(f"/jobs/{sweep}")
        page.get_by_role("link", name="Grid").click()
        table = page.locator("table.cells")
        expect(table.locator("tbody tr")).to_have_count(3)
        expect(table.locator("td img")).to_have_count(6)
        expect(page.locator(".sheet-name")).to_contain_text("1 of 2")
        page.get_by_role("link", name="Next").click()
        expect(page.locator(".sheet-name")).to_contain_text("an owl")
        expect(table.locator("td a").first).to_have_attribute("href", f"/jobs/{sweep}/images/6")
        page.get_by_label("Rows").select_option("prompt")
        page.get_by_role("button", name="Show").click()
        expect(table.locator("tbody tr")).to_have_count(2)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download PNG").click()
        assert download.value.path().read_bytes().startswith(b"\x89PNG")
        watch.check()


def test_pictures_that_end_appear_in_the_window(farm: RunningFarm, browser: Browser) -> None:
    job_id = farm.client.submit(["live"], images_per_prompt=130, steps=2, size="128x128", batch_size=16).id
    with visit(browser, farm) as (page, watch):
        page.goto(f"/jobs/{job_id}?at=129")
        expect(tile(page, 129)).to_be_in_viewport()
        tile(page, 129).locator(".pick").click()
        expect(tile(page, 129)).to_have_class(re.compile("completed"), timeout=120_000)
        expect(tile(page, 129).get_by_role("checkbox")).to_be_checked()
        farm.await_job(job_id)
        expect(page.locator("#live .badge")).to_have_text("completed")
        assert watch.errors == []
        watch.check()


def test_all_of_it_without_javascript(farm: RunningFarm, browser: Browser, sweep: int, many: int) -> None:
    with visit(browser, farm, java_script_enabled=False) as (page, watch):
        page.goto(f"/jobs/{many}")
        page.get_by_role("link", name="More pictures").click()
        expect(tile(page, 60)).to_be_visible()
        page.get_by_label("Go to picture").fill("57000")
        page.get_by_role("button", name="Go", exact=True).click()
        expect(tile(page, 56_999)).to_be_visible()
        page.goto(f"/jobs/{sweep}")
        tile(page, 2).get_by_role("checkbox").check()
        tile(page, 3).get_by_role("checkbox").check()
        page.get_by_role("button", name="Reject").click()
        expect(page.locator('.tile[data-rating="-1"]')).to_have_count(2)
        tile(page, 2).get_by_role("checkbox").check()
        tile(page, 3).get_by_role("checkbox").check()
        page.get_by_role("button", name="Clear mark").click()
        expect(page.locator('.tile[data-rating="-1"]')).to_have_count(0)
        tile(page, 2).get_by_role("checkbox").check()
        tile(page, 8).get_by_role("checkbox").check()
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_text("What differs")).to_be_visible()
        assert watch.errors == []
