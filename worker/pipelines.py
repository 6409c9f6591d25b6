"""Loads a catalog entry's pipelines onto one device, with what base and refiner share loaded once."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from farm import __version__
from farm.adapters import SAFE
from farm.catalog import Catalog, Pipeline
from farm.errors import ConfigurationError
from farm.spec import Mode
from farm.states import Stage
from worker.adapters import Adapters, take_embeds_as_given
from worker.decoding import Decoder
from worker.options import apply_options, projections_are_fused
from worker.prompt_cache import PromptCache
from worker.tiny import write_tiny_checkpoint
from worker.tiny_adapters import write_tiny_adapters

_MODES: dict[Mode, Any] = {
    "text": StableDiffusionXLPipeline,
    "image": StableDiffusionXLImg2ImgPipeline,
    "inpaint": StableDiffusionXLInpaintPipeline,
}
_CONTROLLED: dict[Mode, Any] = {
    "text": StableDiffusionXLControlNetPipeline,
    "image": StableDiffusionXLControlNetImg2ImgPipeline,
    "inpaint": StableDiffusionXLControlNetInpaintPipeline,
}
#: The checkpoint that the farm makes itself, in the models directory.
TINY = "tiny"
#: Components that base and refiner have in common, loaded once where one device holds both. The tokenizer is among
#: them because its words and the encoder's vectors grow together.
SHARED = ("text_encoder_2", "tokenizer_2", "vae")
#: Symbols of the smallest byte-level vocabulary: CLIP's tokenizers know at least every byte.
BYTES = 256


@dataclass(frozen=True)
class LoadedPipeline:
    """A catalog entry in a device's memory. ``base`` or ``refiner`` is None where its stage is not served."""

    entry: Pipeline
    device: str
    base: StableDiffusionXLPipeline | None
    refiner: StableDiffusionXLImg2ImgPipeline | None
    decoder: Decoder
    catalog: Catalog
    adapters: dict[Stage, Adapters]
    fingerprint: dict[str, str] = field(default_factory=dict)
    """What pictures depend on beside their parameters: equal fingerprints promise equal pictures."""
    prompts: dict[Stage, PromptCache] = field(default_factory=lambda: {stage: PromptCache() for stage in Stage})
    """What its encoders have read."""
    _modes: dict[tuple[Stage, Mode], Any] = field(default_factory=dict)

    def mode(self, stage: Stage, mode: Mode) -> Any:
        """The diffusers pipeline for a mode of a stage, made on first use over the same modules: no weight is doubled.

        Raises ValueError when the stage was not loaded.
        """
        own = self.base if stage is Stage.BASE else self.refiner
        if own is None:
            raise ValueError(f"pipeline {self.entry.name} was loaded without its {stage.value}")
        if (stage, mode) not in self._modes:
            kind = _MODES[mode]
            # Without a dtype from_pipe would cast the shared modules to float32.
            pipe = own if isinstance(own, kind) else kind.from_pipe(own, dtype=getattr(torch, self.entry.dtype))
            pipe.set_progress_bar_config(disable=True)
            take_embeds_as_given(pipe)
            self._modes[stage, mode] = pipe
        return self._modes[stage, mode]

    def controlled(self, mode: Mode, names: Sequence[str]) -> Any:
        """The base's pipeline for a mode, with these ControlNets of the catalog."""
        adapters = self.adapters[Stage.BASE]
        dtype = getattr(torch, self.entry.dtype)
        nets = adapters.controlnets([self.catalog.controlnets.get(name) for name in names], dtype)
        pipe = _CONTROLLED[mode].from_pipe(
            self.mode(Stage.BASE, mode), controlnet=nets[0] if len(nets) == 1 else nets, dtype=dtype
        )
        pipe.set_progress_bar_config(disable=True)
        take_embeds_as_given(pipe)
        return pipe


def load(
    entry: Pipeline, models_directory: Path, device: str, stages: Collection[Stage], catalog: Catalog | None = None
) -> LoadedPipeline:
    """Load what ``stages`` need, from safetensors only; ``catalog`` holds the adapters, by default the built-in ones.

    Raises ConfigurationError, with the checkpoint and the remedy, when it cannot be loaded.
    """
    if Stage.BASE not in stages and entry.refiner is None:
        raise ConfigurationError(f"Pipeline {entry.name!r} has no refiner: let this worker serve its base.")
    # Progress bars of the libraries would fill the log.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    # diffusers warns at each call of what it does itself: that the VAE goes to float32 and back.
    diffusers_logging.set_verbosity_error()
    if entry.base == f"./{TINY}/base":
        try:
            write_tiny_checkpoint(models_directory / TINY)
            write_tiny_adapters(models_directory / f"{TINY}-adapters", models_directory / TINY)
        except OSError as error:
            raise ConfigurationError(
                f"Pipeline {entry.name!r}: its checkpoint cannot be written to {models_directory / TINY} ({error}). "
                f"Let FARM_MODELS name a directory that this worker may write to."
            ) from error
    base = refiner = decoder = None
    _read_ahead(entry, models_directory, stages)
    if Stage.BASE in stages:
        path = entry.local_path(entry.base, models_directory)
        config = entry.base_config and entry.local_path(entry.base_config, models_directory)
        components = _overrides(entry, models_directory)
        base, decoder = _from_pretrained(StableDiffusionXLPipeline, entry, path, config, device, components)
        if entry.unet is not None and entry.unet.endswith(SAFE):
            _load_weights(entry, base.unet, entry.local_path(entry.unet, models_directory))
    if Stage.REFINER in stages and entry.refiner is not None:
        path = entry.local_path(entry.refiner, models_directory)
        shared = (
            _overrides(entry.model_copy(update={"unet": None}), models_directory)
            if base is None
            else {name: getattr(base, name) for name in SHARED}
        )
        config = entry.refiner_config and entry.local_path(entry.refiner_config, models_directory)
        refiner, decoder = _from_pretrained(
            StableDiffusionXLImg2ImgPipeline, entry, path, config, device, shared, decoder
        )
    adapters = {
        stage: Adapters(pipe, models_directory, fused=projections_are_fused(entry, device))
        for stage, pipe in ((Stage.BASE, base), (Stage.REFINER, refiner))
        if pipe is not None
    }
    assert decoder is not None  # noqa: S101 - one of the stages was loaded
    return LoadedPipeline(
        entry, device, base, refiner, decoder, catalog or Catalog.load(), adapters, _fingerprint(entry, device)
    )


def _from_pretrained(
    kind: Any,
    entry: Pipeline,
    path: str,
    config: str | None,
    device: str,
    shared: dict[str, Any],
    decoder: Decoder | None = None,
) -> tuple[Any, Decoder]:
    """A pipeline of class ``kind`` on the device; ``shared`` are components that are loaded already, as is ``decoder``.

    ``config`` describes a single file.
    """
    try:
        dtype = getattr(torch, entry.dtype)
        if path.endswith(SAFE):
            given = {} if config is None else {"config": config, "local_files_only": True}
            pipe = kind.from_single_file(path, torch_dtype=dtype, **given, **shared)
        else:
            pipe = kind.from_pretrained(path, variant=entry.variant, **_straight_to(device, entry), **shared)
        # Before anything is offloaded: what decodes in a dtype of its own stays on the device.
        decoder = decoder or Decoder(pipe.vae, entry)
        if decoder.vae is not pipe.vae:
            decoder.vae.to(device)
        if entry.offload == "none":
            pipe.to(device)
        apply_options(pipe, decoder, entry, device)
    except ConfigurationError:
        raise
    except Exception as error:
        # Whatever the libraries trip over, in a checkpoint or a driver, the operator is who can mend it.
        raise ConfigurationError(
            f"Pipeline {entry.name!r}: {path} cannot be loaded to {device} ({error}). Name a folder in diffusers' "
            f"layout with safetensors weights, a single file with its config, or a repository of the model hub that "
            f"this machine reaches, in the catalog, and a device that this machine has."
        ) from error
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2):
        # Without its files a tokenizer loads all the same, and every prompt would mean the same.
        if tokenizer is not None and len(tokenizer) < BYTES:
            raise ConfigurationError(
                f"Pipeline {entry.name!r}: a tokenizer of {path} is empty; fetch the checkpoint again, complete."
            )
    pipe.set_progress_bar_config(disable=True)
    return pipe, decoder


def _straight_to(device: str, entry: Pipeline) -> dict[str, Any]:
    """How weights are read: from safetensors only, in the entry's dtype, and onto the device if they stay there."""
    kind = device.partition(":")[0] if entry.offload == "none" else None
    return {"dtype": getattr(torch, entry.dtype), "use_safetensors": True, "device_map": kind}


def _read_ahead(entry: Pipeline, models_directory: Path, stages: Collection[Stage]) -> None:
    """Have the system read all weights at once that will be wanted one after the other, if they are local.

    Not by loading them on several threads: diffusers makes its modules empty by a patch of torch that all threads see.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    wanted = {Stage.BASE: (entry.base, entry.unet, entry.vae), Stage.REFINER: (entry.refiner,)}
    for checkpoint in [one for stage in stages for one in wanted[stage] if one is not None]:
        path = Path(entry.local_path(checkpoint, models_directory))
        for file in (
            [path] if path.is_file() else path.rglob(f"*.{entry.variant}{SAFE}" if entry.variant else f"*{SAFE}")
        ):
            with file.open("rb") as weights:
                os.posix_fadvise(weights.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _overrides(entry: Pipeline, models_directory: Path) -> dict[str, Any]:
    """Components that the entry wants in place of the checkpoint's own."""
    components = {}
    for name, kind, path in (("vae", AutoencoderKL, entry.vae), ("unet", UNet2DConditionModel, entry.unet)):
        if path is None or (name == "unet" and path.endswith(SAFE)):
            continue
        located = entry.local_path(path, models_directory)
        try:
            components[name] = kind.from_pretrained(located, dtype=getattr(torch, entry.dtype), use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"Pipeline {entry.name!r}: its {name} {located} cannot be loaded ({error}). Name a folder in "
                f"diffusers' layout with safetensors weights, or a repository of the model hub."
            ) from error
    return components


def _load_weights(entry: Pipeline, unet: UNet2DConditionModel, path: str) -> None:
    """Put a file of weights, local or ``owner/repository/file`` on the model hub, into the base's own UNet.

    As the model card of SDXL-Lightning does; keys and shapes must be those of diffusers' UNet.
    """
    try:
        if not Path(path).is_file():
            owner, repository, file = path.split("/", 2)
            path = hf_hub_download(f"{owner}/{repository}", file)
        unet.load_state_dict(load_file(path))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError(
            f"Pipeline {entry.name!r}: its unet {path} cannot be loaded ({error}). Name a file of safetensors with the "
            f"weights of a UNet as diffusers writes them, local or as owner/repository/file on the model hub."
        ) from error


def _fingerprint(entry: Pipeline, device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    return {
        "farm": __version__,
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
        "device": name,
        # On a CPU they decide how sums are split, and so the last bits.
        "threads": "any" if device.startswith("cuda") else str(torch.get_num_threads()),
        "dtype": entry.dtype,
    }
