"""What gpu.py renders: its settings, prompts and parameters. Nothing here needs torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.catalog import Defaults, Pipeline
from farm.schedule import split_steps
from farm.spec import ImageParameters
from farm.states import Stage

#: Of the catalog entry that is measured.
NAME = "full-size"
#: The name of a run that is not counted.
WARM_UP = "warm-up"


@dataclass(frozen=True)
class Setting:
    """What is rendered, and how often."""

    name: str
    steps: int
    guidance: float
    split: float | None
    """Where the refiner takes over; None without one."""
    size: int = 1024
    """Edge in pixels."""
    batch_size: int = 8
    batches: int = 2
    """Calls of a run of the engine and of the batched loop."""
    farm_batches: int = 6
    """Batches of a job of the farm: what its start and its end cost is shared by so many."""
    runs: int = 3
    compared: int = 4
    """Pictures whose error is measured; at most a batch."""
    requests: int = 100
    """Interactive requests that arrive."""
    dtype: str = "float16"
    device: str = "cuda"

    @property
    def torch_device(self) -> str:
        """The device as the worker names it."""
        return "cpu" if self.device == "cpu" else f"{self.device}:0"

    @property
    def evaluations(self) -> tuple[int, int]:
        """Steps of base and refiner."""
        return (self.steps, 0) if self.split is None else split_steps(self.steps, self.split)

    @property
    def stages(self) -> frozenset[Stage]:
        """Those that render."""
        return frozenset({Stage.BASE} if self.split is None else Stage)


SETTINGS = {
    "documentation": Setting("documentation", steps=40, guidance=5.0, split=0.8),
    "mlperf": Setting("mlperf", steps=20, guidance=8.0, split=None),
}


def small(setting: Setting) -> Setting:
    """The same for the tiny pipeline on a CPU: is all of it alive?"""
    return replace(
        setting,
        size=64,
        steps=5,
        batch_size=2,
        farm_batches=2,
        runs=1,
        compared=2,
        requests=6,
        dtype="float32",
        device="cpu",
    )


@dataclass(frozen=True)
class Work:
    """A setting, and where its files are."""

    setting: Setting
    checkpoint: Path
    directory: Path
    """For whatever a part has to keep."""

    @property
    def reference(self) -> Path:
        """The pictures that errors are measured against, as NumPy saves them."""
        return self.directory / f"reference-{self.setting.name}.npy"


def entry(work: Work, changes: dict[str, Any] | None = None) -> Pipeline:
    """The catalog entry, with changes to what it says of nothing but checkpoints, dtype and batch size."""
    setting = work.setting
    return Pipeline.model_validate(
        {
            "name": NAME,
            "base": str(work.checkpoint / "base"),
            "refiner": None if setting.split is None else str(work.checkpoint / "refiner"),
            "dtype": setting.dtype,
            "batch_size": setting.batch_size,
            "defaults": Defaults(refiner_split=setting.split),
            **(changes or {}),
        }
    )


def images(texts: list[str], setting: Setting, output_format: str = "png") -> list[ImageParameters]:
    """Parameters of pictures with the seeds 0, 1, 2, ..."""
    common = {
        "pipeline": NAME,
        "width": setting.size,
        "height": setting.size,
        "num_inference_steps": setting.steps,
        "guidance_scale": setting.guidance,
        "refiner_split": setting.split,
        "output_format": output_format,
        # Neither side marks its pictures: it takes time of the host, and changes them.
        "watermark": False,
    }
    return [ImageParameters.model_validate({**common, "prompt": text, "seed": n}) for n, text in enumerate(texts)]


def prompts(count: int, run: str) -> list[str]:
    """Texts that no other run has: none was encoded before."""
    return [f"a red fox in the snow, photograph, 85 mm, shallow depth of field, {run} {n}" for n in range(count)]


def batches(setting: Setting, run: str) -> list[list[str]]:
    """The prompts of a run, call by call."""
    texts = prompts(setting.batch_size * setting.batches, run)
    return [texts[start : start + setting.batch_size] for start in range(0, len(texts), setting.batch_size)]
