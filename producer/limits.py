"""What the parameters of an image allow, but this farm or this pipeline does not."""

from collections.abc import Iterator, Sequence
from typing import Any

from farm.catalog import Catalog, Entries, Pipeline
from farm.errors import NotFoundError, Problem
from farm.spec import ImageParameters


def limit_problems(image: ImageParameters, catalog: Catalog, pipeline: Pipeline, line: int | None) -> list[Problem]:
    """What the parameters allow but this farm or this pipeline does not."""
    problems = []
    if image.width > pipeline.max_width:
        problems.append(Problem("width", f"{image.width} exceeds the {pipeline.max_width} of {pipeline.name}", line))
    if image.height > pipeline.max_height:
        problems.append(Problem("height", f"{image.height} exceeds the {pipeline.max_height} of {pipeline.name}", line))
    for name in ("num_inference_steps", "guidance_scale"):
        limit = getattr(pipeline, f"max_{name}")
        if getattr(image, name) > limit:
            problems.append(Problem(name, f"{getattr(image, name)} exceeds the {limit} of {pipeline.name}", line))
    if image.refined and pipeline.refiner is None:
        field = "refiner_split" if image.refiner_split is not None else "refiner_strength"
        problems.append(Problem(field, f"{pipeline.name} has no refiner; leave it out", line))
    problems += [Problem(field, message, line) for field, message in _adapter_problems(image, catalog, pipeline)]
    return problems


def _adapter_problems(image: ImageParameters, catalog: Catalog, pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    """Adapters that the catalog does not hold, or that were made for other pipelines."""
    named: list[tuple[str, Entries[Any], Sequence[str]]] = [
        ("loras", catalog.loras, [lora.name for lora in image.loras]),
        ("textual_inversions", catalog.textual_inversions, image.textual_inversions),
        ("controlnet", catalog.controlnets, image.controlnet),
        ("ip_adapter", catalog.ip_adapters, [image.ip_adapter] if image.ip_adapter else []),
    ]
    for field, entries, names in named:
        for name in names:
            try:
                entry = entries.get(name)
            except NotFoundError as error:
                yield field, str(error)
                continue
            if not entry.fits(pipeline.name):
                yield field, f"{name} was made for {', '.join(entry.pipelines)}, not for {pipeline.name}; leave it out"
