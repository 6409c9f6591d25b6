"""How numbers, times and names are said to people."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from farm.spec import ImageParameters

#: The order in which parameters are shown; Postgres keeps none.
ORDER = (
    "prompt_2",
    "negative_prompt",
    "negative_prompt_2",
    "seed",
    "images_per_prompt",
    "pipeline",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "refiner_split",
    "batch_size",
    "priority",
)


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``42 s``, ``5 min``, ``3 h 20 min``, ``4 days``."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"


def ago(moment: datetime) -> str:
    """How long ago it was."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "just now" if seconds < 5 else f"{duration(seconds)} ago"


def thousands(number: int) -> str:
    """A number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def told(parameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Parameters in their order, without those that are as they always are."""
    fields = ImageParameters.model_fields
    return [
        (name, value)
        for name, value in in_order(parameters)
        if value not in (None, [], {}) and not (name in fields and _as_json(fields[name].default) == value)
    ]


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def in_order(parameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Parameters in one order everywhere; those without a place come last, by name."""
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(parameters.items(), key=lambda item: (places.get(item[0], len(places)), item[0]))
