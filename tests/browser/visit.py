"""A visit in a real browser: logged in, watched, in one of two sizes."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page
from running import RunningFarm

SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 800}}
RENDER_MILLISECONDS = 60_000


class Watch:
    """What a page must not do: log errors, ask other hosts, be wider than its window."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "request",
            lambda request: request.url.startswith((url, "data:", "blob:")) or self.errors.append(request.url),
        )

    def check(self) -> None:
        # Before its style sheets are there a page may be of any width.
        self.page.wait_for_load_state("load")
        assert self.errors == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@contextmanager
def visit(
    browser: Browser, farm: RunningFarm, size: str = "desktop", **options: object
) -> Iterator[tuple[Page, Watch]]:
    """A page of a browser that is logged in as administrator, and the watch over it."""
    context = browser.new_context(viewport=SIZES[size], base_url=farm.url, **options)  # type: ignore[arg-type]
    page = context.new_page()
    watch = Watch(page, farm.url)
    page.goto(farm.login_link())
    try:
        yield page, watch
    finally:
        context.close()
