"""Chromium, found on this machine or installed where that is allowed."""

import os
import shutil
import subprocess

from playwright.sync_api import Browser, Playwright, sync_playwright

#: Nothing of Chromium's own may go out: only the pages' requests are to be seen.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


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


def launch(playwright: Playwright) -> Browser:
    """A browser without a window."""
    return playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
