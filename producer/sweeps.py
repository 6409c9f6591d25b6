"""Sweeps: parameters that take several values in turn, and each combination of them becomes an image."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Any

from farm.combinations import CombinationError
from farm.spec import ROW_FIELDS, listed
from producer.intake import ALIASES, canonical, suggestion

MAX_AXES = 6
#: Combinations of one sweep.
MAX_CELLS = 100_000
AXES = (*ROW_FIELDS, *ALIASES, "size")
_RANGE = re.compile(r"\s*(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)(?:\s+(?:step|by)\s+(-?[\d.]+))?\s*")

Sweep = dict[str, list[Any]]
"""Axes by name, with their values, in the order in which they were given."""


def read_sweep(value: Any) -> Sweep:
    """Axes from an object, or from text such as ``guidance_scale: 3..9 step 2; steps: 20, 40``.

    A value is a list, or text: a range with both ends (``3..9 step 2``), or values with commas between them. Raises
    CombinationError, whose field is ``sweep``.
    """
    given = _from_text(value) if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        raise _refusal('must be an object such as {"guidance_scale": [3, 5, 7]}')
    sweep: Sweep = {}
    for name, values in given.items():
        if name not in AXES:
            meant = suggestion(str(name))
            remedy = f"did you mean {meant}?" if meant else f"the parameters are {', '.join(AXES)}"
            raise _refusal(f"{str(name)[:60]!r} is no parameter; {remedy}")
        sweep[name] = _values(name, values)
    if len(sweep) > MAX_AXES:
        raise _refusal(f"has {len(sweep)} axes; at most {MAX_AXES} are taken")
    count = 1
    for values in sweep.values():
        count *= len(values)
    if count > MAX_CELLS:
        raise _refusal(f"has {count:,} combinations; at most {MAX_CELLS:,} are taken")
    return sweep


def cells(sweep: Sweep) -> list[dict[str, Any]]:
    """What each combination sets, by the names of the spec; the last axis runs fastest. Without axes, one is empty."""
    return [canonical(dict(zip(sweep, values, strict=True))) for values in product(*sweep.values())]


def _from_text(text: str) -> Any:
    text = text.strip()
    if text.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise _refusal(f"{text[:40]!r} is no JSON") from None
    given: dict[str, str] = {}
    for part in re.split(r"[\n;]", text):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*(\w+)\s*[:=](.*)", part)
        if match is None:
            raise _refusal(f"{part.strip()[:60]!r} is no axis; write one such as guidance_scale: 3..9 step 2")
        if match[1] in given:
            raise _refusal(f"names {match[1]} twice; write its values behind one another")
        given[match[1]] = match[2]
    return given


def _values(name: str, given: Any) -> list[Any]:
    match = _RANGE.fullmatch(given) if isinstance(given, str) else None
    values = _range(*match.groups()) if match else [*listed(given)]
    if not values:
        raise _refusal(f"{name} has no values; give at least one")
    return values


def _range(first: str, last: str, step: str | None) -> list[int | float]:
    """Numbers from first to last, both included. In decimals: binary fractions would miss the end."""
    try:
        low, high = Decimal(first), Decimal(last)
        by = Decimal(step) if step else Decimal(1)
    except InvalidOperation:
        raise _refusal(f"{first}..{last} is no range of numbers; write one such as 3..9 step 2") from None
    if by == 0 or (high - low) / by < 0:
        raise _refusal(f"{first}..{last} with step {by} never ends; turn the step around")
    count = int((high - low) / by) + 1
    if count > MAX_CELLS:
        raise _refusal(f"{first}..{last} with step {by} has {count:,} values; at most {MAX_CELLS:,} are taken")
    numbers = [low + by * place for place in range(count)]
    return [int(number) if number == number.to_integral_value() else float(number) for number in numbers]


def _refusal(message: str) -> CombinationError:
    return CombinationError("sweep", message)
