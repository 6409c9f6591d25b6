"""Chromium, without a window."""

import subprocess

from playwright.sync_api import Browser, Playwright, sync_playwright
from programs import find_program

#: Nothing of Chromium's own may go out: only the pages' requests are to be seen.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def find_chromium() -> str:
    """Path of a Chromium; Playwright's own is fetched where the system has none."""
    if path := find_program("chromium", "chromium-browser", "google-chrome"):
        return path
    subprocess.run(["playwright", "install", "chromium"], check=True)
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def launch(playwright: Playwright) -> Browser:
    """A browser without a window."""
    return playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
