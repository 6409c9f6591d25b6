"""The catalog: the pipelines that this farm offers, by name.

Users name an entry and never a checkpoint. The built-in entries can be extended or replaced by a TOML file
(``FARM_CATALOG``) with one table per pipeline::

    [pipelines.studio-xl]
    base = "/models/studio-xl/base"
    refiner = "/models/studio-xl/refiner"
    dtype = "bfloat16"
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from farm.errors import ConfigurationError, NotFoundError


class Defaults(BaseModel):
    """What an image gets where the submission is silent. Names and meanings are diffusers' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = 1024
    height: int = 1024
    num_inference_steps: int = 40
    guidance_scale: float = 5.0
    refiner_split: float = 0.8


class Pipeline(BaseModel):
    """One entry: which checkpoints to load, how, and the limits of what may be asked of it.

    ``base`` and ``refiner`` are names on the model hub or folders in diffusers' layout; a path that begins
    with ``./`` is relative to the models directory. Without a ``refiner`` the base finishes every picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    base: str
    refiner: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    variant: str | None = None
    batch_size: int = Field(default=4, ge=1, le=64)
    max_width: int = 2048
    max_height: int = 2048
    defaults: Defaults = Defaults()

    def local_path(self, checkpoint: str, models_directory: Path) -> str:
        """Where to load ``checkpoint`` from: relative folders are resolved, hub names pass through."""
        return str(models_directory / checkpoint[2:]) if checkpoint.startswith("./") else checkpoint


class _File(BaseModel):
    """The TOML file: one table per pipeline."""

    model_config = ConfigDict(extra="forbid")

    pipelines: dict[str, dict[str, Any]] = Field(default_factory=dict)


BUILT_IN = (
    Pipeline(
        name="sdxl-1.0",
        base="stabilityai/stable-diffusion-xl-base-1.0",
        refiner="stabilityai/stable-diffusion-xl-refiner-1.0",
        dtype="float16",
        variant="fp16",
        batch_size=4,
    ),
    Pipeline(
        name="tiny",
        base="./tiny/base",
        refiner="./tiny/refiner",
        dtype="float32",
        batch_size=8,
        max_width=1024,
        max_height=1024,
        defaults=Defaults(width=256, height=256, num_inference_steps=10),
    ),
)


class Catalog:
    """The pipelines on offer."""

    def __init__(self, pipelines: dict[str, Pipeline]) -> None:
        self._pipelines = pipelines

    @classmethod
    def load(cls, path: Path | None = None) -> "Catalog":
        """Built-in entries, extended or replaced by those of the TOML file at ``path``."""
        pipelines = {pipeline.name: pipeline for pipeline in BUILT_IN}
        if path is not None:
            try:
                file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
                for name, table in file.pipelines.items():
                    pipelines[name] = Pipeline.model_validate({"name": name, **table})
            except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
                raise ConfigurationError(f"The catalog {path} cannot be used: {error}") from error
        return cls(pipelines)

    def get(self, name: str) -> Pipeline:
        """The entry called ``name``; NotFoundError names those that exist."""
        try:
            return self._pipelines[name]
        except KeyError:
            raise NotFoundError(
                f"There is no pipeline {name!r}; the catalog holds {', '.join(sorted(self._pipelines))}."
            ) from None

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self._pipelines.values())
