"""Loads a catalog entry's pipelines onto one device, with what base and refiner share loaded once."""

from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from farm import __version__
from farm.catalog import Pipeline
from farm.errors import ConfigurationError
from farm.states import Stage
from worker.tiny import write_tiny_checkpoint

TINY = "tiny"


@dataclass(frozen=True)
class LoadedPipeline:
    """A catalog entry in a device's memory. ``base`` or ``refiner`` is None where its stage is not served."""

    entry: Pipeline
    device: str
    base: StableDiffusionXLPipeline | None
    refiner: StableDiffusionXLImg2ImgPipeline | None
    fingerprint: dict[str, str] = field(default_factory=dict)
    """What pictures depend on beside their parameters: equal fingerprints promise equal pictures."""


def load(entry: Pipeline, models_directory: Path, device: str, stages: Collection[Stage]) -> LoadedPipeline:
    """Load what ``stages`` need, from safetensors only.

    Raises ConfigurationError, with the checkpoint and the remedy, when it cannot be loaded.
    """
    # Progress bars of the libraries would fill the log.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    if entry.name == TINY and not (models_directory / TINY).is_dir():
        write_tiny_checkpoint(models_directory / TINY)
    dtype: torch.dtype = getattr(torch, entry.dtype)
    base = refiner = None
    if Stage.BASE in stages:
        base = _from_pretrained(StableDiffusionXLPipeline, entry, entry.base, models_directory, dtype, {}).to(device)
    if Stage.REFINER in stages and entry.refiner is not None:
        shared = {} if base is None else {"text_encoder_2": base.text_encoder_2, "vae": base.vae}
        refiner = _from_pretrained(
            StableDiffusionXLImg2ImgPipeline, entry, entry.refiner, models_directory, dtype, shared
        ).to(device)
    for pipeline in (base, refiner):
        if pipeline is not None:
            pipeline.set_progress_bar_config(disable=True)
    return LoadedPipeline(entry, device, base, refiner, _fingerprint(entry, device))


def _from_pretrained(
    kind: type[StableDiffusionXLPipeline | StableDiffusionXLImg2ImgPipeline],
    entry: Pipeline,
    checkpoint: str,
    models_directory: Path,
    dtype: torch.dtype,
    shared: dict[str, torch.nn.Module],
) -> StableDiffusionXLPipeline | StableDiffusionXLImg2ImgPipeline:
    path = entry.local_path(checkpoint, models_directory)
    try:
        return kind.from_pretrained(path, dtype=dtype, variant=entry.variant, use_safetensors=True, **shared)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"Pipeline {entry.name!r}: {path} cannot be loaded ({error}). Name a folder in diffusers' layout with "
            f"safetensors weights, or a repository of the model hub that this machine reaches, in the catalog."
        ) from error


def _fingerprint(entry: Pipeline, device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    return {
        "farm": __version__,
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
        "device": name,
        "dtype": entry.dtype,
    }
