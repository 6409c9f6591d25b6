"""Parameters of pictures for tests that render on the tiny pipeline, and the pictures that go in."""

import io
from typing import Any

from PIL import Image, ImageDraw

from farm.spec import ImageParameters
from farm.storage import sha256
from worker import latents, stages
from worker.pipelines import LoadedPipeline


def parameters(prompt: str, seed: int, **changes: Any) -> ImageParameters:
    values = {
        "pipeline": "tiny",
        "width": 256,
        "height": 256,
        "num_inference_steps": 8,
        "guidance_scale": 5.0,
        "refiner_split": 0.8,
        "watermark": False,
    }
    return ImageParameters.model_validate({**values, "prompt": prompt, "seed": seed, **changes})


def quiet(_step: stages.Step) -> None:
    """Nobody watches."""


def render(pipeline: LoadedPipeline, images: list[ImageParameters]) -> list[Any]:
    """The pictures of a batch, with its latents packed as for the store between the stages."""
    if not images[0].refined:
        return stages.render_base_only(pipeline, images, INPUTS, quiet)
    sent = latents.pack(stages.render_base(pipeline, images, INPUTS, quiet), range(len(images)))
    return stages.render_refiner(pipeline, images, INPUTS, latents.unpack(sent), quiet)


def landscape(width: int = 192, height: int = 128) -> Image.Image:
    """A sky, a meadow, a sun and a house."""
    picture = Image.new("RGB", (width, height), "skyblue")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height * 0.6, width, height), "seagreen")
    draw.ellipse((width * 0.1, height * 0.1, width * 0.25, height * 0.3), "gold")
    draw.rectangle((width * 0.5, height * 0.4, width * 0.7, height * 0.7), "firebrick")
    return picture


def mask(width: int = 192, height: int = 128) -> Image.Image:
    """White where the house is."""
    picture = Image.new("RGB", (width, height), "black")
    ImageDraw.Draw(picture).rectangle((width * 0.45, height * 0.35, width * 0.75, height * 0.75), "white")
    return picture


def ring(width: int = 100, height: int = 140) -> Image.Image:
    picture = Image.new("RGB", (width, height), "black")
    ImageDraw.Draw(picture).ellipse((10, 10, width - 10, height - 10), outline="white", width=20)
    return picture


def png(picture: Image.Image) -> bytes:
    """As the farm writes what is uploaded, so that its name is that of these bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def ref(picture: Image.Image) -> str:
    """The name under which parameters speak of it."""
    return f"sha256:{sha256(png(picture))}"


LANDSCAPE, PORTRAIT = ref(landscape()), ref(landscape(100, 140))
MASK, RING = ref(mask()), ref(ring())
INPUTS = {ref(picture): picture for picture in (landscape(), landscape(100, 140), mask(), ring())}
