"""The catalog: the pipelines that this farm offers, by name.

Users name an entry and never a checkpoint. The built-in entries can be extended or replaced by a TOML file
(``FARM_CATALOG``) with one table per pipeline::

    [pipelines.studio-xl]
    base = "/models/studio-xl/base"
    refiner = "/models/studio-xl/refiner"
    dtype = "bfloat16"
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from farm.adapters import SAFE, ControlNet, IpAdapter, Lora, TextualInversion, is_pickle, local_path
from farm.errors import ConfigurationError, NotFoundError
from farm.fitting import fitted
from farm.schedulers import SchedulerOptions
from farm.spec import MAX_BATCH, ImageParameters, LoraUse

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Defaults(BaseModel):
    """What an image gets where the submission is silent. Names and meanings are diffusers' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = 1024
    height: int = 1024
    num_inference_steps: int = 40
    guidance_scale: float = 5.0
    refiner_split: float | None = 0.8
    scheduler: str | None = None
    scheduler_options: SchedulerOptions = SchedulerOptions()
    guidance_rescale: float = 0.0
    clip_skip: int | None = None
    loras: tuple[LoraUse, ...] = ()
    """Whoever names LoRAs of their own names these beside them."""


class Pipeline(BaseModel):
    """One entry: which checkpoints to load, how, and the limits of what may be asked of it.

    ``base`` and ``refiner`` are names on the model hub or folders in diffusers' layout; a path that begins
    with ``./`` is relative to the models directory, one that begins with ``shipped:`` comes with the farm. Files that
    end in ``.safetensors`` are single files in the original layout. Without a ``refiner`` the base finishes every
    picture.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    base: str
    refiner: str | None = None
    base_config: str | None = None
    refiner_config: str | None = None
    """A folder in diffusers' layout that describes a single file (its weights are not read); without it diffusers asks
    the model hub."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    variant: str | None = None
    vram: float | None = Field(default=None, gt=0)
    """GiB of device memory that it needs: workers that choose among pipelines pass by what does not fit."""
    batch_size: int | None = Field(default=None, ge=1, le=MAX_BATCH)
    """Images in one call where a job does not say. Left out: as many as were fastest on the devices."""
    max_width: int = 2048
    max_height: int = 2048
    max_num_inference_steps: int = 1000
    max_guidance_scale: float = 100.0
    """Few-step models were distilled without guidance: more of it only spoils their pictures."""
    defaults: Defaults = Defaults()

    vae: str | None = None
    """A VAE in place of the checkpoint's own, for base and refiner: a folder or a name on the model hub."""
    unet: str | None = None
    """A UNet in place of the base's own: a folder or repository, or a file of weights (on the hub owner/name/file)."""

    vae_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """In which pictures are decoded. Left out: in ``dtype``, but in float32 where that is float16 and the VAE's own
    configuration says that it overflows there."""

    offload: Literal["none", "model", "sequential"] = "none"
    """What leaves the device's memory while it is not needed; slower, and only with a GPU."""
    vae_slicing: bool = False
    vae_tiling: bool = False
    attention_slicing: bool = False

    compile: Literal["none", "regional", "full", "max-autotune"] = "none"
    """torch.compile of the UNets: their repeated blocks, or the whole, on a GPU with CUDA graphs; with max-autotune
    each kernel is also chosen by measuring."""
    channels_last: bool | None = None
    """Left out: on GPUs."""
    fused_qkv: bool | None = None
    """One projection in place of three. Left out: on GPUs. Switched off by itself while a LoRA or an IP-Adapter acts,
    whose weights belong to single projections."""
    attention: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"
    """Which of torch's kernels for attention is tried first; auto leaves it to torch."""
    quantisation: Literal["none", "int8", "fp8"] = "none"
    """The UNets' linear layers in 8 bits, activations too (torchao): faster, and the pictures change visibly."""
    xformers: bool = False

    @model_validator(mode="after")
    def _defaults_are_possible(self) -> Self:
        for checkpoint in (self.base, self.refiner, self.vae, self.unet):
            if checkpoint is not None and is_pickle(checkpoint):
                raise ValueError(
                    f"{checkpoint} is a pickle, which can run code when it is loaded; convert it to safetensors"
                )
        for stage in ("base", "refiner"):
            if getattr(self, f"{stage}_config") is not None and not (getattr(self, stage) or "").endswith(SAFE):
                raise ValueError(f"{stage}_config describes a single file, and {stage} names none: leave it out")
        values = {**self.defaults.model_dump(exclude_none=True), "pipeline": self.name, "prompt": "any", "seed": 0}
        if self.refiner is None:
            values.pop("refiner_split", None)
        image = ImageParameters.model_validate(values)
        for name in ("num_inference_steps", "guidance_scale"):
            if getattr(image, name) > getattr(self, f"max_{name}"):
                raise ValueError(f"the default of {name} exceeds max_{name}")
        return self

    def local_path(self, checkpoint: str, models_directory: Path) -> str:
        """Where to load ``checkpoint`` from: relative folders are resolved, hub names pass through."""
        return local_path(checkpoint, models_directory)


Kind = TypeVar("Kind", Pipeline, Lora, TextualInversion, ControlNet, IpAdapter)


_TRAILING = SchedulerOptions(timestep_spacing="trailing")
BUILT_IN = (
    Pipeline(
        name="sdxl-1.0",
        base="stabilityai/stable-diffusion-xl-base-1.0",
        refiner="stabilityai/stable-diffusion-xl-refiner-1.0",
        dtype="float16",
        variant="fp16",
    ),
    # Distilled models, as their model cards and diffusers' documentation run them.
    Pipeline(
        name="sdxl-turbo",
        base="stabilityai/sdxl-turbo",
        variant="fp16",
        max_num_inference_steps=4,
        max_guidance_scale=1.0,
        defaults=Defaults(
            width=512,
            height=512,
            num_inference_steps=1,
            guidance_scale=0.0,
            scheduler="euler_a",
            scheduler_options=_TRAILING,
        ),
    ),
    Pipeline(
        name="sdxl-lightning",
        base="stabilityai/stable-diffusion-xl-base-1.0",
        unet="ByteDance/SDXL-Lightning/sdxl_lightning_4step_unet.safetensors",
        variant="fp16",
        # Distilled for this number, and no other.
        max_num_inference_steps=4,
        max_guidance_scale=1.0,
        defaults=Defaults(num_inference_steps=4, guidance_scale=0.0, scheduler="euler", scheduler_options=_TRAILING),
    ),
    Pipeline(
        name="sdxl-lcm",
        base="stabilityai/stable-diffusion-xl-base-1.0",
        unet="latent-consistency/lcm-sdxl",
        variant="fp16",
        max_num_inference_steps=8,
        # This UNet takes the scale as an input, and needs no second pass for it.
        max_guidance_scale=13.0,
        defaults=Defaults(num_inference_steps=4, guidance_scale=8.0, scheduler="lcm"),
    ),
    Pipeline(
        name="sdxl-lcm-lora",
        base="stabilityai/stable-diffusion-xl-base-1.0",
        variant="fp16",
        max_num_inference_steps=8,
        # Above 2 the pictures burn out, below 1 there is no guidance at all.
        max_guidance_scale=2.0,
        defaults=Defaults(
            num_inference_steps=4, guidance_scale=1.0, scheduler="lcm", loras=(LoraUse(name="lcm-lora-sdxl"),)
        ),
    ),
    Pipeline(
        name="tiny-turbo",
        base="./tiny/base",
        dtype="float32",
        batch_size=8,
        max_width=1024,
        max_height=1024,
        max_num_inference_steps=4,
        max_guidance_scale=1.0,
        defaults=Defaults(
            width=256,
            height=256,
            num_inference_steps=2,
            guidance_scale=0.0,
            scheduler="euler_a",
            scheduler_options=_TRAILING,
        ),
    ),
    Pipeline(
        name="demo",
        base="shipped:demo/base",
        refiner="shipped:demo/refiner",
        dtype="float32",
        batch_size=8,
        max_width=1024,
        max_height=1024,
        defaults=Defaults(width=256, height=256, num_inference_steps=20, guidance_scale=3.5),
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


_TINY = {"pipelines": ("tiny", "tiny-turbo")}
_ON_SDXL = {"pipelines": ("sdxl-1.0", "sdxl-lcm-lora")}
BUILT_IN_LORAS = (
    Lora(
        name="lcm-lora-sdxl",
        path="latent-consistency/lcm-lora-sdxl",
        weight_name="pytorch_lora_weights.safetensors",
        **_ON_SDXL,
    ),
    *(Lora(name=name, path=f"./tiny-adapters/{name}.safetensors", **_TINY) for name in ("tiny-warm", "tiny-cool")),
)
BUILT_IN_TEXTUAL_INVERSIONS = (
    TextualInversion(name="tiny-glyph", path="./tiny-adapters/tiny-glyph.safetensors", token="<glyph>", **_TINY),  # noqa: S106
)
BUILT_IN_CONTROLNETS = tuple(
    ControlNet(name=name, path=f"./tiny-adapters/{name}", **_TINY) for name in ("tiny-edges", "tiny-depth")
)
BUILT_IN_IP_ADAPTERS = (
    IpAdapter(name="tiny-look", path="./tiny-adapters/tiny-look", weight_name="ip-adapter_sdxl.safetensors", **_TINY),
)


class Entries(Generic[Kind]):
    """Entries of one kind, by name."""

    def __init__(self, kind: str, entries: Iterable[Kind]) -> None:
        self._kind = kind
        self._entries: dict[str, Kind] = {entry.name: entry for entry in entries}

    def get(self, name: str) -> Kind:
        """The entry called ``name``; NotFoundError names those that exist."""
        try:
            return self._entries[name]
        except KeyError:
            names = ", ".join(sorted(self._entries)) or "none"
            raise NotFoundError(f"There is no {self._kind} {name!r}; the catalog holds {names}.") from None

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._entries.values())


class Catalog:
    """The pipelines on offer, and what can be added to them."""

    def __init__(
        self,
        pipelines: Iterable[Pipeline],
        loras: Iterable[Lora] = BUILT_IN_LORAS,
        textual_inversions: Iterable[TextualInversion] = BUILT_IN_TEXTUAL_INVERSIONS,
        controlnets: Iterable[ControlNet] = BUILT_IN_CONTROLNETS,
        ip_adapters: Iterable[IpAdapter] = BUILT_IN_IP_ADAPTERS,
    ) -> None:
        self._pipelines = Entries("pipeline", pipelines)
        self.loras = Entries("LoRA", loras)
        self.textual_inversions = Entries("textual inversion", textual_inversions)
        self.controlnets = Entries("ControlNet", controlnets)
        self.ip_adapters = Entries("IP-Adapter", ip_adapters)

    @classmethod
    def load(cls, path: Path | None = None, models_directory: Path = Path()) -> "Catalog":
        """Built-in entries, extended or replaced by those of the TOML file at ``path``.

        Raises ConfigurationError for entries that cannot work.
        """
        if path is None:
            return cls(BUILT_IN)
        try:
            file = _read(path)
            pipelines = list(_merged(BUILT_IN, "pipelines", file))
            catalog = cls(
                pipelines,
                [fitted(lora, pipelines, models_directory) for lora in _merged(BUILT_IN_LORAS, "loras", file)],
                _merged(BUILT_IN_TEXTUAL_INVERSIONS, "textual_inversions", file),
                _merged(BUILT_IN_CONTROLNETS, "controlnets", file),
                _merged(BUILT_IN_IP_ADAPTERS, "ip_adapters", file),
            )
            _check_default_loras(catalog)
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"The catalog {path} cannot be used: {error}") from error
        return catalog

    def get(self, name: str) -> Pipeline:
        """The pipeline called ``name``; NotFoundError names those that exist."""
        return self._pipelines.get(name)

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(self._pipelines)


#: What the tables of a file hold.
KINDS: Mapping[str, type[Pipeline | Lora | TextualInversion | ControlNet | IpAdapter]] = {
    "pipelines": Pipeline,
    "loras": Lora,
    "textual_inversions": TextualInversion,
    "controlnets": ControlNet,
    "ip_adapters": IpAdapter,
}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a file: by table, then by name. Raises ValueError with all that is wrong with them."""
    entries: dict[str, dict[str, Any]] = {table: {} for table in KINDS}
    problems = []
    for table, named in tomllib.loads(path.read_text(encoding="utf-8")).items():
        if table not in KINDS or not isinstance(named, dict):
            problems.append(f"[{table}] is no table of a catalog{_meant(table, KINDS)}")
            continue
        for name, fields in named.items():
            if not isinstance(fields, dict):
                problems.append(f"[{table}] {name} stands outside of an entry; write it below [{table}.NAME]")
                continue
            try:
                entries[table][name] = KINDS[table].model_validate({"name": name, **fields})
            except ValidationError as error:
                problems += [_problem(f"[{table}.{name}]", KINDS[table], details) for details in error.errors()]
    if problems:
        raise ValueError("".join(f"\n  {problem}" for problem in problems))
    return entries


def _problem(where: str, kind: type[BaseModel], details: "ErrorDetails") -> str:
    field = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return f"{where} {field} is no field of it{_meant(field, kind.model_fields)}"
    said = details["msg"].removeprefix("Value error, ")
    return f"{where} {field}: {said[0].lower()}{said[1:]}" if field else f"{where} {said}"


def _meant(word: str, words: Iterable[str]) -> str:
    known = sorted(words)
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def _merged(built_in: Iterable[Kind], table: str, file: Mapping[str, Mapping[str, Any]]) -> Iterable[Kind]:
    """Built-in entries, extended or replaced by those of the file."""
    return ({entry.name: entry for entry in built_in} | dict(file[table])).values()


def _check_default_loras(catalog: Catalog) -> None:
    """Raise ValueError for a pipeline whose defaults name a LoRA that is not there, or not for it."""
    for pipeline in catalog:
        for use in pipeline.defaults.loras:
            if use.name not in {lora.name for lora in catalog.loras}:
                raise ValueError(f"pipeline {pipeline.name}: its default LoRA {use.name} is not in the catalog; add it")
            if not catalog.loras.get(use.name).fits(pipeline.name):
                raise ValueError(
                    f"pipeline {pipeline.name}: its default LoRA {use.name} was made for other pipelines; name this "
                    f"one among them, or leave it out"
                )
