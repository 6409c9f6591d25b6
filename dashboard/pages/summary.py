"""A planned job in words: what its pictures are made of, how many there are, and when they will be there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard.context import context
from farm.spec import ImageParameters
from producer.batching import PlannedBatch
from producer.estimate import Estimate, estimate, work_of
from producer.expand import Plan
from producer.throughput import throughput

#: Pictures that are shown as examples.
SAMPLES = 12
#: More different values than this are counted, not named.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter of the sweep, and its values."""

    name: str
    values: list[Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a job will be."""

    image_count: int
    batch_count: int
    factors: list[str]
    """What is multiplied: rows, prompts of their templates, axes, images per prompt."""
    axes: list[Axis]
    facts: list[str]
    """Pipeline, sizes, steps and so on."""
    samples: list[ImageParameters]
    expanded: bool
    """Whether prompts or parameters came out of templates or sweeps, so that the samples say more than the rows."""
    estimate: Estimate
    has_workers: bool


def summarise(plan: Plan, batches: Sequence[PlannedBatch], row_count: int) -> Summary:
    """The plan in words, with an estimate from what the farm measured."""
    farm = context()
    spec = plan.spec
    cells = 1
    for values in spec.sweep.values():
        cells *= len(values)
    prompts = len(plan.planned) // (cells * spec.images_per_prompt) if spec.first is None else row_count
    factors = [counted(row_count, "prompt")]
    if spec.templates != "none" and prompts != row_count:
        factors = [f"{counted(prompts, 'prompt')} from {counted(row_count, 'template')}"]
    factors += [f"{len(values)} \N{MULTIPLICATION SIGN} {name}" for name, values in spec.sweep.items()]
    if spec.images_per_prompt > 1:
        factors.append(f"{spec.images_per_prompt} images per prompt")
    known = throughput(farm.engine, plan.pipeline.name, farm.settings.lease_seconds)
    return Summary(
        image_count=len(plan.planned),
        batch_count=len(batches),
        factors=factors,
        axes=[Axis(name, values) for name, values in spec.sweep.items()],
        facts=[plan.pipeline.name, *_facts([batch.parameters for batch in batches])],
        samples=[image.parameters() for image in plan.planned[:SAMPLES]],
        expanded=bool(spec.sweep) or spec.templates != "none",
        estimate=estimate(work_of(batches), known),
        has_workers=bool(known.workers),
    )


def counted(count: int, what: str) -> str:
    """``1 prompt``, ``2 prompts``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _facts(batches: Sequence[Any]) -> list[str]:
    splits = {batch.refiner_split for batch in batches}
    strengths = {batch.refiner_strength for batch in batches}
    facts = [
        _either((f"{batch.width}\N{MULTIPLICATION SIGN}{batch.height}" for batch in batches), "sizes"),
        f"{_either((batch.num_inference_steps for batch in batches), 'numbers of')} steps",
        f"guidance {_either((f'{batch.guidance_scale:g}' for batch in batches), 'values')}",
    ]
    if splits == {None} and strengths == {None}:
        facts.append("base alone")
    elif strengths == {None} and None not in splits:
        facts.append(f"refiner from {_either((f'{split * 100:g} %' for split in splits), 'points')}")
    else:
        facts.append("with the refiner" if None not in splits | strengths else "partly with the refiner")
    return facts


def _either(values: Iterable[Any], what: str) -> str:
    found = sorted(set(values), key=str)
    return " or ".join(map(str, found)) if len(found) <= _NAMED else f"{len(found)} different {what}"
