"""Submitting, in a real browser: what is pasted or dropped is understood at once, mended in place, and rendered."""

import base64
import io
import re
from collections.abc import Iterator

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Page, expect
from running import RunningFarm
from sheets import workbook
from visit import RENDER_MILLISECONDS, SIZES, Watch, visit

from farm.spec import ImageParameters

HOSTILE = "<img src=x onerror=alert(1)>\u202eevil " + "x" * 9_900


@pytest.fixture
def seen(browser: Browser, farm: RunningFarm) -> Iterator[tuple[Page, Watch]]:
    with visit(browser, farm) as seen:
        seen[0].goto("/jobs/new")
        yield seen


def picture(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), (colour, 90, 120)).save(buffer, "PNG")
    return buffer.getvalue()


def drop(page: Page, target: str, *files: tuple[str, str, bytes]) -> None:
    """Drop files (name, media type, bytes) on an element, as a file manager does."""
    given = [[name, kind, base64.b64encode(data).decode()] for name, kind, data in files]
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, type, data] of files) {
                const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
                transfer.items.add(new File([bytes], name, { type }));
            }
            return transfer;
        }""",
        given,
    )
    for event in ("dragover", "drop"):
        page.dispatch_event(target, event, {"dataTransfer": transfer})


def submit(page: Page, button: str = "Submit job") -> int:
    page.get_by_role("button", name=button).click()
    page.wait_for_url(re.compile(r"/jobs/\d+(\?|$)"), wait_until="load")
    return int(page.url.split("?")[0].rpartition("/")[2])


def verdict(page: Page, text: str) -> None:
    expect(page.locator("#verdict")).to_contain_text(text)


@pytest.mark.parametrize("size", SIZES)
def test_paste_see_the_error_mend_it_and_submit(farm: RunningFarm, browser: Browser, size: str) -> None:
    with visit(browser, farm, size) as (page, watch):
        page.goto("/jobs/new")
        prompts = page.get_by_label("One prompt per line")
        prompts.fill("prompt,steps,size\na red fox,6,256x256\nan owl,many,256x256\na bear,6,250x256\n")
        verdict(page, "2 problems")
        bad = page.locator("td[aria-invalid=true]")
        expect(bad).to_have_count(2)
        expect(bad.first).to_contain_text("'many' is not possible")
        expect(bad.last).to_contain_text("250 is not divisible by 8")
        expect(page.locator("tr.wrong-row").get_by_role("rowheader")).to_have_text(["3", "4"])
        watch.check()
        prompts.fill("prompt,steps,size\na red fox,6,256x256\nan owl,6,256x256\na bear,6,256x256\n")
        verdict(page, "3 pictures")
        expect(bad).to_have_count(0)
        job_id = submit(page)
        expect(page.locator(".tile.completed")).to_have_count(3, timeout=RENDER_MILLISECONDS)
        assert [image["num_inference_steps"] for image in farm.images(job_id)] == [6, 6, 6]
        watch.check()


def test_a_spreadsheet_with_foreign_titles_is_mapped(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    sheet = workbook([["Caption", "CFG", "mood"], ["a fox", 7, "calm"], ["an owl", 4, "wild"]])
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    drop(page, "#prompts", ("foreign.xlsx", kind, sheet))
    verdict(page, "No column is the prompt")
    # Guesses are shown as such, and used by nobody before they are confirmed.
    expect(page.get_by_label("Caption")).to_have_value('{"Caption": "prompt"}')
    expect(page.get_by_text("a guess: please confirm").first).to_be_visible()
    page.get_by_role("button", name="Use these columns").click()
    verdict(page, "2 pictures")
    page.get_by_label("CFG").select_option("leave out")
    expect(page.get_by_role("columnheader", name="CFG")).to_contain_text("not used")
    page.get_by_label("CFG").select_option("guidance_scale")
    expect(page.get_by_role("columnheader", name="CFG")).to_contain_text("guidance_scale")
    watch.check()
    job_id = submit(page)
    assert [(one["prompt"], one["guidance_scale"]) for one in farm.images(job_id)] == [
        ("a fox", 7.0),
        ("an owl", 4.0),
    ]


def test_pictures_to_start_from_are_matched_by_name(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    rows = "prompt,image,strength\n" + "".join(f"scene {n},house{n}.png,0.8\n" for n in range(3)) + "x,lost.png,0.8\n"
    drop(page, "#prompts", ("rows.csv", "text/csv", rows.encode()))
    verdict(page, "4 problems")
    page.get_by_text("Pictures that go in").click()
    files = [(f"house{n}.png", "image/png", picture(n * 80)) for n in range(3)]
    drop(page, "[data-drop=pictures]", *files, ("spare.png", "image/png", picture(250)))
    expect(page.locator(".uploads li.ready")).to_have_count(4)
    expect(page.locator(".uploads img").first).to_have_js_property("naturalWidth", 128)
    # What a row names and nobody uploaded is an error in its cell.
    verdict(page, "1 problem")
    expect(page.locator("td[aria-invalid=true]")).to_contain_text("'lost.png' was not uploaded")
    prompts = page.get_by_label("One prompt per line")
    prompts.fill(rows.replace("x,lost.png,0.8\n", ""))
    verdict(page, "3 pictures")
    expect(page.get_by_text("used by no row: spare.png")).to_be_visible()
    watch.check()
    job_id = submit(page)
    assert len({image["image"] for image in farm.images(job_id)}) == 3
    assert farm.await_job(job_id)["state"] == "completed"


def test_what_is_no_picture_is_told_beside_its_name(seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    page.get_by_text("Pictures that go in").click()
    drop(page, "[data-drop=pictures]", ("x.png", "image/png", b"<svg onload='alert(1)'/>"))
    expect(page.locator(".uploads li")).to_contain_text("is no picture")
    page.get_by_role("button", name="Remove x.png").click()
    expect(page.locator(".uploads li")).to_have_count(0)
    assert all("422" in error for error in watch.errors)


def test_each_prompt_with_each_picture(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, _ = seen
    page.get_by_label("One prompt per line").fill("a castle, oil\na castle, pencil")
    drop(page, "#job-form", *((f"{n}, and more.png", "image/png", picture(n * 70)) for n in range(3)))
    expect(page.locator(".uploads li.ready")).to_have_count(3)
    page.get_by_label("Without such a column").select_option("image")
    verdict(page, "6 pictures")
    job_id = submit(page)
    assert len({image["image"] for image in farm.images(job_id)}) == 3


def test_a_preset_is_saved_and_loaded(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    page.get_by_role("spinbutton", name="Steps").fill("7")
    page.get_by_label("Refiner", exact=True).select_option("base alone")
    page.get_by_text("Start from a preset").click()
    page.get_by_label("Keep these fields as").fill("quick")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Saved the preset")).to_be_visible()
    page.goto("/jobs/new")
    page.get_by_label("One prompt per line").fill("stays here")
    page.get_by_text("Start from a preset (1)").click()
    page.get_by_role("link", name="quick").click()
    expect(page.get_by_role("spinbutton", name="Steps")).to_have_value("7")
    expect(page.get_by_label("Refiner", exact=True)).to_have_value("no")
    expect(page.get_by_label("One prompt per line")).to_have_value("stays here")
    expect(page.locator(".preview .facts")).to_contain_text("7 steps")
    page.get_by_role("button", name="Delete the preset quick").click()
    expect(page.get_by_role("link", name="quick")).to_have_count(0)
    watch.check()


def test_again_with_changes_and_from_a_dropped_picture(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    # The invisible watermark rounds in coarse steps: what a batch does to the last bit would show.
    fields = {"steps": 6, "seed": 11, "images_per_prompt": 2, "negative_prompt": "blurry", "watermark": False}
    job_id = farm.client.submit(["a fox", "an owl"], **fields).id
    farm.await_job(job_id)
    page.goto(f"/jobs/new?from_job={job_id}")
    expect(page.get_by_label("One prompt per line")).to_have_value("a fox\nan owl")
    verdict(page, "4 pictures")
    page.get_by_role("spinbutton", name="Steps").fill("8")
    again = submit(page)
    assert [(one["prompt"], one["seed"], one["num_inference_steps"]) for one in farm.images(again)] == [
        (one["prompt"], one["seed"], 8) for one in farm.images(job_id)
    ]
    image = list(farm.images(job_id))[3]
    page.goto("/jobs/new")
    data = farm.client.request("GET", image["file_url"]).content
    drop(page, "#job-form", ("mine.png", "image/png", data))
    expect(page.get_by_text("Filled in from the picture")).to_be_visible()
    expect(page.get_by_label("One prompt per line")).to_have_value("an owl")
    restored = submit(page)
    farm.await_job(restored)
    (one,) = farm.images(restored)
    parameters = ImageParameters.model_fields
    assert {name: one[name] for name in parameters} == {name: image[name] for name in parameters}
    differences = ImageChops.difference(
        *(farm.client.job(picture["job_id"]).image(picture["index"]).pil() for picture in (one, image))
    ).getextrema()
    assert max(high for _, high in differences) <= 1
    page.goto("/jobs/new")
    drop(page, "#job-form", ("other.png", "image/png", picture(3)))
    expect(page.get_by_role("alert")).to_contain_text("does not say what it was made from")
    assert all("422" in error for error in watch.errors)


def test_a_test_run_and_then_the_rest(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    page.get_by_label("One prompt per line").fill("\n".join(f"fox {number}" for number in range(12)))
    page.get_by_role("spinbutton", name="Steps").fill("6")
    verdict(page, "12 pictures")
    job_id = submit(page, "Test run: first 4")
    expect(page.locator("#test-run")).to_contain_text("Test run: 4 rendered, 8 wait", timeout=RENDER_MILLISECONDS)
    assert farm.job(job_id)["images"] == {
        "total": 12,
        "completed": 4,
        "failed": 0,
        "cancelled": 0,
        "pending": 8,
        "removed": 0,
    }
    watch.check()
    page.get_by_role("button", name="Render the rest").click()
    expect(page.locator("#test-run")).to_have_count(0)
    assert farm.await_job(job_id)["images"]["completed"] == 12
    watch.check()


def test_the_command_line_knows_test_runs(farm: RunningFarm) -> None:
    submitted = farm.command(
        *("submit", "--prompt", "a", "--images-per-prompt", "6", "--steps", "6", "--test-run", "2", "--wait")
    )
    assert submitted.returncode == 0, submitted.stderr
    assert "test run: 2 pictures" in submitted.stdout
    job_id = farm.client.jobs(1)[0].id
    assert f"farm resume {job_id}" in submitted.stdout
    assert farm.command("resume", str(job_id)).returncode == 0
    assert farm.await_job(job_id)["images"]["completed"] == 6


def test_words_templates_and_a_sweep(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    page.get_by_text("Many from one").click()
    page.get_by_role("link", name="Lists of words").click()
    page.get_by_label("Name").fill("animal")
    page.get_by_label("Words").fill("fox\nowl\nbear")
    page.get_by_role("button", name="Save list").click()
    expect(page.get_by_text("3 words: fox, owl, bear")).to_be_visible()
    watch.check()
    page.goto("/jobs/new")
    page.get_by_label("One prompt per line").fill("a {red|blue} __animal__")
    page.get_by_text("Many from one").click()
    page.get_by_label("Templates").select_option("all")
    verdict(page, "6 pictures")
    page.get_by_label("Its values").fill("3..9 step 2")
    page.get_by_role("button", name="Add axis").click()
    page.get_by_label("Axis", exact=True).select_option("steps")
    page.get_by_label("Its values").fill("5, 6")
    page.keyboard.press("Enter")
    verdict(page, "48 pictures")
    expect(page.get_by_label("Sweep")).to_have_value("guidance_scale: 3..9 step 2\nsteps: 5, 6")
    expect(page.get_by_role("list", name="Axes")).to_contain_text("4 values: 3, 5, 7, 9")
    expect(page.locator(".samples li").first).to_contain_text("a red fox")
    watch.check()
    job_id = submit(page)
    assert (
        len({(one["prompt"], one["guidance_scale"], one["num_inference_steps"]) for one in farm.images(job_id)}) == 48
    )
    farm.client.job(job_id).cancel()
    page.goto("/words")
    page.get_by_role("button", name="Delete animal").click()
    expect(page.get_by_text("There is no list yet")).to_be_visible()


def test_hostile_prompts_stay_text(seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    page.on("dialog", lambda dialog: watch.errors.append(dialog.message))
    page.get_by_label("One prompt per line").fill(f"prompt\tsteps\n{HOSTILE}\t6\n{HOSTILE}\tmany\n")
    verdict(page, "1 problem")
    expect(page.locator(".preview-table bdi", has_text="<img src=x").first).to_be_visible()
    watch.check()


def test_without_javascript(farm: RunningFarm, browser: Browser) -> None:
    with visit(browser, farm, java_script_enabled=False) as (page, watch):
        page.goto("/jobs/new")
        sheet = workbook([["Caption", "steps"], ["a fox", "many"], ["an owl", 6]])
        page.get_by_label("or a file").set_input_files(
            {"name": "a.xlsx", "mimeType": "application/zip", "buffer": sheet}
        )
        page.get_by_role("button", name="Check").click()
        verdict(page, "No column is the prompt")
        page.get_by_role("button", name="Use these columns").click()
        verdict(page, "1 problem")
        expect(page.locator("td[aria-invalid=true]")).to_contain_text("'many' is not possible")
        prompts = page.get_by_label("One prompt per line")
        prompts.fill(prompts.input_value().replace("many", "6"))
        page.get_by_role("button", name="Check").click()
        verdict(page, "2 pictures")
        page.get_by_role("button", name="Submit job").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("a fox")
        assert watch.errors == []


def test_a_large_job_is_previewed_while_it_is_typed(farm: RunningFarm, seen: tuple[Page, Watch]) -> None:
    page, watch = seen
    rows = "".join(f"a fox number {number},{6 + number % 3}\n" for number in range(20_000))
    drop(page, "#prompts", ("large.csv", "text/csv", ("prompt,steps\n" + rows).encode()))
    expect(page.locator("#verdict")).to_contain_text(
        "20\N{NARROW NO-BREAK SPACE}000 pictures", timeout=RENDER_MILLISECONDS
    )
    expect(page.locator(".preview-table tbody tr")).to_have_count(100)
    watch.check()
