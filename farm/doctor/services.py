"""Where database and broker are: those of the settings, else those of an embedded farm that runs on this machine."""

from collections.abc import Callable
from pathlib import Path

from farm.doctor.findings import Finding, error, ok, warning
from farm.settings import Settings


def locate_services(settings: Settings) -> tuple[Settings, list[Finding]]:
    """The settings with the addresses of embedded services that run, and what is to be said of those that do not.

    Whichever address is then missing belongs to a service that cannot be looked at.
    """
    try:
        from farm.embedded import running_postgres, running_valkey
    except ModuleNotFoundError:
        if settings.database_url or settings.broker_url:
            return settings, []
        missing = "without FARM_DATABASE_URL and FARM_BROKER_URL, and without what starts a farm of its own"
        return settings, [
            warning(
                "database",
                f"this machine is a client: it is {missing}",
                "To run a farm here: pip install 'sdxl-farm[all]', then farm up.",
            )
        ]
    findings: list[Finding] = []
    found: dict[str, str] = {}
    embedded: tuple[tuple[str, str, Callable[[Path], str | None], Path], ...] = (
        ("database", "Postgres", running_postgres, settings.data / "postgres"),
        ("broker", "Valkey", running_valkey, settings.data / "valkey"),
    )
    for check, name, running, directory in embedded:
        if getattr(settings, f"{check}_url") is not None:
            continue
        variable = f"FARM_{check.upper()}_URL"
        try:
            url = running(directory)
        except ModuleNotFoundError as lacking:
            findings.append(
                error(
                    check,
                    f"{variable} is not set, and the embedded {name} is not installed (there is no {lacking.name})",
                    f"Set {variable}, or install it: pip install 'sdxl-farm[embedded]'.",
                )
            )
            continue
        if url is not None:
            found[f"{check}_url"] = url
            findings.append(ok(check, f"the embedded {name} runs on {directory}"))
        else:
            findings.append(
                warning(
                    check,
                    f"the embedded farm in {settings.data} is down: no {name} runs on {directory}",
                    f"Start it with `farm up`. If this machine belongs to a cluster, set {variable}.",
                )
            )
    return settings.model_copy(update=found), findings
