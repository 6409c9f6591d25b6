"""What can be added to a pipeline, by name: LoRAs, textual inversions, ControlNets, IP-Adapters.

Tables of the catalog's TOML file, beside its pipelines::

    [loras.pixel-art]
    path = "/models/loras/pixel-art-xl.safetensors"
    pipelines = ["sdxl-1.0"]

    [controlnets.canny]
    path = "diffusers/controlnet-canny-sdxl-1.0"
    variant = "fp16"
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

SAFE = ".safetensors"
#: Checkpoints that begin so come with the farm.
SHIPPED = "shipped:"
_SHIPPED_MODELS = Path(__file__).parent / "shipped"


def local_path(checkpoint: str, models_directory: Path) -> str:
    """Where to load ``checkpoint`` from: paths that begin with ``./`` start in the models directory.

    Those that begin with ``shipped:`` start where the farm is installed.
    """
    if checkpoint.startswith(SHIPPED):
        return str(_SHIPPED_MODELS / checkpoint.removeprefix(SHIPPED))
    return str(models_directory / checkpoint[2:]) if checkpoint.startswith("./") else checkpoint


def is_pickle(file: str) -> bool:
    """Whether a file's name is one of those that PyTorch gives to pickles."""
    return Path(file).suffix.lower() in (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Adapter(BaseModel):
    """What all kinds have in common: a folder, a repository of the model hub, or a file of safetensors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")
    path: str
    weight_name: str | None = None
    """The file in the folder or repository."""
    pipelines: tuple[str, ...] = ()
    """Pipelines that it was made for; none given: all."""

    @model_validator(mode="after")
    def _only_safetensors(self) -> "Adapter":
        for file in (self.path, self.weight_name or ""):
            if is_pickle(file):
                raise ValueError(
                    f"{file} is a pickle, which can run code when it is loaded; convert it to safetensors and name that"
                )
        return self

    def fits(self, pipeline: str) -> bool:
        """Whether it was made for the pipeline."""
        return not self.pipelines or pipeline in self.pipelines

    def located(self, models_directory: Path) -> tuple[str, str | None]:
        """Folder or repository, and the file in it, as diffusers' loaders take them."""
        path = local_path(self.path, models_directory)
        if path.endswith(SAFE):
            return str(Path(path).parent), Path(path).name
        return path, self.weight_name


class Lora(Adapter):
    """Low-rank changes of UNet and text encoders."""


class TextualInversion(Adapter):
    """A word that both text encoders learned: a file with the vectors ``clip_l`` and ``clip_g``."""

    token: str = Field(min_length=1, max_length=100)
    """What prompts write for it."""


class ControlNet(Adapter):
    """A network that follows a control image."""

    variant: str | None = None


class IpAdapter(Adapter):
    """Lets pictures follow a picture, as if it were part of the prompt."""

    subfolder: str = ""
    image_encoder_folder: str = "image_encoder"
