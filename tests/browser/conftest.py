"""A browser, and a running farm for all journeys of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import launch
from conftest import Services, farm_settings
from playwright.sync_api import Browser, expect, sync_playwright
from running import RunningFarm, running_farm

# Farms, browsers and other tests share the machine: what comes late is not broken.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def farm(services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    """A running farm with one worker, for all journeys of a module."""
    directory = tmp_path_factory.mktemp("farm")
    with (
        farm_settings(services, directory, models_directory) as settings,
        # Receivers of webhooks are on this machine.
        running_farm(
            settings.model_copy(update={"allowed_hosts": "127.0.0.0/8"}), directory, ["--device", "cpu"]
        ) as farm,
    ):
        yield farm


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for a module: while Playwright runs, its event loop is the thread's, and no other test could start one."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()
