"""What entries of the catalog load: folders and files of this machine, or of repositories of the model hub."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from farm.adapters import SAFE, SHIPPED, Adapter, ControlNet, IpAdapter, Lora, TextualInversion, local_path
from farm.catalog import Catalog, Pipeline

Entry = Pipeline | Adapter

#: What workers write themselves when they first need it.
SELF_MADE = ("./tiny/", "./tiny-adapters/")
#: diffusers' name for the file of a LoRA.
LORA_FILE = f"pytorch_lora_weights{SAFE}"
#: As diffusers takes a single file of the model hub.
_FILE_ADDRESS = re.compile(r"^(?:https://)?(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)/(?:blob|resolve)/main/(.+)$")


class Layout(StrEnum):
    """How a folder or repository is read."""

    PIPELINE = "pipeline"
    """A whole pipeline in diffusers' layout: model_index.json, and a folder for each component."""
    MODEL = "model"
    """One component: its config.json and its weights."""
    CONFIG = "config"
    """What describes a pipeline, without its weights."""
    FILE = "file"
    """One file."""


@dataclass(frozen=True, slots=True)
class Need:
    """One folder or file that an entry loads."""

    role: str
    """What for: ``base``, ``vae``, ``weights`` ..."""
    path: Path | None
    """Where it is on this machine; None for what comes from the model hub."""
    repository: str | None
    """Its name on the model hub."""
    layout: Layout
    name: str = ""
    """The file, or the folder of a component, in it."""
    variant: str | None = None
    self_made: bool = False
    """Workers write it when they first need it."""

    @property
    def where(self) -> str:
        """For people."""
        name = f"/{self.name}" if self.name else ""
        return f"{self.path or self.repository}{name}"


def kind_of(entry: Entry) -> str:
    """What an entry is, for people."""
    kinds = {Lora: "LoRA", TextualInversion: "textual inversion", ControlNet: "ControlNet", IpAdapter: "IP-Adapter"}
    return kinds.get(type(entry), "pipeline")


def all_entries(catalog: Catalog) -> Iterator[Entry]:
    """Pipelines, then adapters."""
    yield from catalog
    yield from catalog.loras
    yield from catalog.textual_inversions
    yield from catalog.controlnets
    yield from catalog.ip_adapters


def needs_of(entry: Entry, catalog: Catalog, models_directory: Path) -> list[Need]:
    """All that an entry loads: its own, and of a pipeline the LoRAs that its defaults name."""
    needs = own_needs(entry, models_directory)
    if isinstance(entry, Pipeline):
        for use in entry.defaults.loras:
            lora = catalog.loras.get(use.name)
            needs += [replace(need, role=f"LoRA {lora.name}") for need in own_needs(lora, models_directory)]
    return needs


def own_needs(entry: Entry, models_directory: Path) -> list[Need]:
    """What an entry names itself."""
    return [*(_pipeline(entry, models_directory) if isinstance(entry, Pipeline) else _adapter(entry, models_directory))]


def _pipeline(entry: Pipeline, models: Path) -> Iterator[Need]:
    for role, checkpoint, config in (
        ("base", entry.base, entry.base_config),
        ("refiner", entry.refiner, entry.refiner_config),
    ):
        if checkpoint is None:
            continue
        if checkpoint.endswith(SAFE):
            yield _file(role, checkpoint, models)
        else:
            yield _need(role, checkpoint, models, Layout.PIPELINE, variant=entry.variant)
        if config is not None:
            yield _need(f"{role}_config", config, models, Layout.CONFIG)
    if entry.vae is not None:
        yield _need("vae", entry.vae, models, Layout.MODEL)
    if entry.unet is not None:
        yield (
            _file("unet", entry.unet, models)
            if entry.unet.endswith(SAFE)
            else _need("unet", entry.unet, models, Layout.MODEL)
        )


def _adapter(entry: Adapter, models: Path) -> Iterator[Need]:
    if isinstance(entry, ControlNet):
        yield _need("weights", entry.path, models, Layout.MODEL, variant=entry.variant)
        return
    folder, _, file = entry.path.rpartition("/") if entry.path.endswith(SAFE) else (entry.path, "", entry.weight_name)
    if isinstance(entry, IpAdapter):
        named = entry.image_encoder_folder
        # diffusers' rule for where it stands.
        encoder = named if "/" in named else "/".join(filter(None, (entry.subfolder, named)))
        yield _need("image encoder", folder, models, Layout.MODEL, encoder)
        file = "/".join(filter(None, (entry.subfolder, file or "")))
    yield _need("weights", folder, models, Layout.FILE, file or LORA_FILE)


def _file(role: str, checkpoint: str, models: Path) -> Need:
    """A file of weights, as pipelines name them: a path, or owner/name/file on the model hub."""
    if address := _FILE_ADDRESS.match(checkpoint):
        return _need(role, address[1], models, Layout.FILE, address[2])
    if _is_local(checkpoint):
        folder, _, file = checkpoint.rpartition("/")
        return _need(role, folder or ".", models, Layout.FILE, file)
    owner, _, rest = checkpoint.partition("/")
    repository, _, file = rest.partition("/")
    return _need(role, f"{owner}/{repository}", models, Layout.FILE, file)


def _need(role: str, source: str, models: Path, layout: Layout, name: str = "", variant: str | None = None) -> Need:
    # A folder in the models directory itself has nothing behind its dot.
    resolved = local_path(source if source != "." else "./", models)
    if _is_local(source):
        made = f"{source}/".startswith(SELF_MADE)
        return Need(role, Path(resolved), None, layout, name, variant, self_made=made)
    return Need(role, None, source, layout, name, variant)


def _is_local(source: str) -> bool:
    """Whether it names something on this machine: names on the hub have an owner, and no folder here is called so."""
    return source.startswith(("./", "../", "/", ".", SHIPPED)) or source.count("/") == 0 or Path(source).exists()
