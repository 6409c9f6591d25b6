"""The settings: whether they can be read, and whether all that look like settings are some."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from pydantic import ValidationError

from farm.doctor.findings import Finding, error, ok, warning
from farm.keeper import RESTARTS_VARIABLE
from farm.parent import KEEPER_VARIABLE
from farm.settings import Settings

CHECK = "settings"
PREFIX = "FARM_"
#: Settings whose values hold secrets.
SECRETS = ("database_url", "broker_url", "message_key")
#: Read by others than ``farm.settings``: the user's commands, and what keepers tell their children.
OTHERS = ("FARM_URL", "FARM_TOKEN", RESTARTS_VARIABLE, KEEPER_VARIABLE)


def read_settings() -> tuple[Settings | None, list[Finding]]:
    """The settings of this process's environment, None if they cannot be read, and what is wrong with them."""
    try:
        return Settings(), []
    except ValidationError as refused:
        findings = []
        for one in refused.errors():
            named = f"{PREFIX}{str(one['loc'][0]).upper()}" if one["loc"] else None
            message = one["msg"].removeprefix("Value error, ")
            findings.append(
                error(
                    CHECK,
                    f"{named} {_shown(one['loc'][0], one['input'])}: {message}" if named else message,
                    f"Correct or unset {named or 'it'}; docs/settings.md says what it may be.",
                )
            )
        return None, findings


def _shown(name: object, value: object) -> str:
    """A wrong value, if it is none that nobody else may read."""
    return "cannot be used" if str(name).lower() in SECRETS else f"is {value!r}"


def check_names(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that begin as ours do, and are none: they change nothing, which whoever set them does not know."""
    known = [*(f"{PREFIX}{name.upper()}" for name in Settings.model_fields), *OTHERS]
    given = sorted(name for name in environment if name.startswith(PREFIX))
    unknown = [name for name in given if name not in known]
    for name in unknown:
        nearest = get_close_matches(name, known, n=1, cutoff=0.7)
        yield warning(
            CHECK,
            f"{name} is no setting: it changes nothing",
            f"Call it {nearest[0]}." if nearest else "Unset it; docs/settings.md lists all settings.",
        )
    if not unknown:
        # Their values may be secrets.
        shown = [name for name in given if name not in OTHERS]
        yield ok(CHECK, f"set: {', '.join(shown)}" if shown else "none is set: all have their defaults")
