"""Chromium, found on this machine or installed where that is allowed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Services, farm_settings
from playwright.sync_api import Browser, sync_playwright
from running import RunningFarm, running_farm


def find_chromium() -> str:
    """Path of a Chromium; on Debian as root it is installed when it is missing."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=True, env=environment)
        return shutil.which("chromium") or ""
    subprocess.run(["playwright", "install", "chromium"], check=True)
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


@pytest.fixture(scope="module")
def farm(services: Services, tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> Iterator[RunningFarm]:
    """A running farm with one worker, for all journeys of a module."""
    directory = tmp_path_factory.mktemp("farm")
    with (
        farm_settings(services, directory, models_directory) as settings,
        running_farm(settings, directory, ["--device", "cpu"]) as farm,
    ):
        yield farm


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Nothing of Chromium's own may go out: only the pages' requests are to be seen.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield browser
        browser.close()
