"""The dashboard that this user's commands go to."""

from collections.abc import Iterator

import httpx

from farm.doctor.findings import Finding, error, ok, warning
from farm.record import find_farm

CHECK = "dashboard"
ANSWER_SECONDS = 5.0


def check_dashboard() -> Iterator[Finding]:
    """Whether it answers, and works."""
    url = find_farm()
    try:
        told = httpx.get(f"{url}/readyz", timeout=ANSWER_SECONDS).json()["checks"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        yield warning(
            CHECK,
            f"no dashboard answers at {url}",
            "Start it (farm up, or farm dashboard), or let FARM_URL name the farm's address.",
        )
        return
    wrong = [f"{name}: {answer}" for name, answer in told.items() if answer != "ok"]
    if wrong:
        yield error(CHECK, f"{url} answers, and does not work: {'; '.join(wrong)}", "Mend that, on its machine.")
    else:
        yield ok(CHECK, f"{url} answers")
