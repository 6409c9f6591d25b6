"""Parameters of pictures for tests that render on the tiny pipeline."""

from typing import Any

from farm.spec import ImageParameters


def parameters(prompt: str, seed: int, **changes: Any) -> ImageParameters:
    values = {
        "pipeline": "tiny",
        "width": 256,
        "height": 256,
        "num_inference_steps": 8,
        "guidance_scale": 5.0,
        "refiner_split": 0.8,
    }
    return ImageParameters.model_validate({**values, "prompt": prompt, "seed": seed, **changes})


def quiet(_step: int, _steps: int) -> None:
    """Nobody watches."""
