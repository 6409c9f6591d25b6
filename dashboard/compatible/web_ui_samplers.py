"""A1111's samplers and schedule types as the farm's schedulers."""

from typing import Any

from dashboard.compatible.bodies import listed, refusal
from farm.schedulers import SCHEDULERS, Scheduler, normal_name

#: Further names that A1111 knows its samplers by.
ALIASES = {
    "euler": ("k_euler",),
    "euler_a": ("k_euler_a", "k_euler_ancestral"),
    "dpmpp_2m": ("k_dpmpp_2m",),
    "dpmpp_2m_karras": ("k_dpmpp_2m_ka",),
    "dpmpp_2m_sde": ("k_dpmpp_2m_sde",),
    "dpmpp_2m_sde_karras": ("k_dpmpp_2m_sde_ka",),
    "dpmpp_sde": ("k_dpmpp_sde",),
    "dpmpp_sde_karras": ("k_dpmpp_sde_ka",),
    "heun": ("k_heun",),
    "dpm2": ("k_dpm_2",),
    "dpm2_karras": ("k_dpm_2_ka",),
    "dpm2_a": ("k_dpm_2_a",),
    "lms": ("k_lms",),
    "lms_karras": ("k_lms_ka",),
    "lcm": ("k_lcm",),
}
#: Schedule types, and the option of a scheduler that each is; those without are the checkpoint's own spacing.
SCHEDULES = {
    "automatic": None,
    "uniform": None,
    "normal": None,
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
}
#: What ``automatic`` is for samplers that were made for one type.
AUTOMATIC = {
    "dpmpp_2m": "karras",
    "dpmpp_sde": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpm2": "karras",
    "dpm2_a": "karras",
}
#: What A1111 takes where only a schedule type is named.
_DEFAULT_SAMPLER = "euler"
#: Their noise is what makes them: they have the whole of it, eta 1.
_ANCESTRAL = ("euler_a", "dpm2_a")
_NAMES = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


def sampler_fields(sampler: str | None, schedule: str | None, eta: float | None) -> dict[str, Any]:
    """The parameters that sampler, schedule type and eta become; none for none. Raises InvalidSubmissionError."""
    kind = (schedule or "automatic").strip().lower()
    if kind not in SCHEDULES:
        raise refusal("scheduler", f"{schedule!r} is not possible here; the schedule types are {listed(SCHEDULES)}")
    if sampler is None and SCHEDULES[kind] is None:
        return {}
    entry = _entry(sampler or _DEFAULT_SAMPLER)
    if kind == "automatic":
        kind = AUTOMATIC.get(entry.name, kind)
    fields: dict[str, Any] = {"scheduler": entry.name}
    option = SCHEDULES[kind]
    if option is not None and not entry.fixed.get(option):
        if f"{entry.name}_{kind}" in SCHEDULERS:
            fields["scheduler"] = f"{entry.name}_{kind}"
        elif option in entry.options:
            fields["scheduler_options"] = {option: True}
        else:
            raise refusal("scheduler", f"{entry.label} has no schedule type {kind}; leave it out, or take automatic")
    if eta is not None and entry.takes_eta:
        fields["eta"] = eta
    elif eta not in (None, 1) and entry.name in _ANCESTRAL:
        raise refusal("eta", f"of {entry.label} is 1 here; leave it out")
    return fields


def _entry(sampler: str) -> Scheduler:
    name = _NAMES.get(sampler.strip().lower()) or normal_name(sampler)
    if name not in SCHEDULERS:
        raise refusal(
            "sampler_name",
            f"there is no {sampler[:60]!r}; the samplers are {', '.join(one.label for one in SCHEDULERS.values())}",
        )
    return SCHEDULERS[name]
