"""How well the packed model does: prompts that it was never told, judged by a program."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from PIL import Image
from rich.progress import track

from tools.train_demo.captions import say
from tools.train_demo.judge import judge, look, sharpness, stands
from tools.train_demo.models import SIDE
from tools.train_demo.world import Scene, draw, scenes

STEPS, SPLIT, GUIDANCE = 20, 0.8, 5.0


@dataclass(frozen=True)
class Scores:
    """Shares of what was judged, 0 to 1."""

    prompts: int
    background: float
    """Its colour is right."""
    main: float
    """Colour and shape of the main thing are."""
    both: float
    """Those of both are, where there are two."""
    layout: float
    """And everything stands where it should."""
    sharper: float
    """Base and refiner give steeper edges than the base alone."""
    kept_layout: float
    """Image to image keeps where the thing stands, and gives it its new colour."""
    inpainted_inside: float
    """Inpainting draws what the prompt says within the mask."""
    inpainted_outside: float
    """And changes nothing elsewhere: what differs from the VAE's own copy does so by less than 4 of 255 on average."""


#: All but the first.
SHARES = tuple(field.name for field in fields(Scores))[1:]


class Model:
    """The packed model in diffusers' own pipelines."""

    def __init__(self, directory: Path) -> None:
        self.base = StableDiffusionXLPipeline.from_pretrained(directory / "base", torch_dtype=torch.float32)
        self.refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
            directory / "refiner", torch_dtype=torch.float32
        )
        self.image_to_image = StableDiffusionXLImg2ImgPipeline(**self.base.components)
        self.inpaint = StableDiffusionXLInpaintPipeline(**self.base.components)
        for pipeline in (self.base, self.refiner, self.image_to_image, self.inpaint):
            pipeline.set_progress_bar_config(disable=True)

    def alone(self, prompt: str, seed: int) -> Image.Image:
        """By the base alone."""
        drawn: list[Image.Image] = self._draw(prompt, seed)
        return drawn[0]

    def refined(self, prompt: str, seed: int) -> Image.Image:
        """By base and refiner."""
        latents = self._draw(prompt, seed, denoising_end=SPLIT, output_type="latent")
        drawn: list[Image.Image] = self.refiner(
            prompt,
            image=latents,
            num_inference_steps=STEPS,
            denoising_start=SPLIT,
            guidance_scale=GUIDANCE,
            generator=_chance(seed + 1),
        ).images
        return drawn[0]

    def _draw(self, prompt: str, seed: int, **more: object) -> Any:
        """Pictures, or latents."""
        options = {"width": SIDE, "height": SIDE, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
        return self.base(prompt, generator=_chance(seed), **options, **more).images


def score(directory: Path, prompts: int, *, show: Callable[[Scene, Image.Image], None] | None = None) -> Scores:
    """Judge the model on so many prompts of each kind; ``show`` sees the pictures."""
    model = Model(directory)
    found: dict[str, list[bool]] = {name: [] for name in SHARES}
    for seed, scene in enumerate(track([*islice(scenes(7, held_out=True), prompts)], "held-out prompts")):
        prompt = say(scene, seed)
        refined, alone = model.refined(prompt, seed), model.alone(prompt, seed)
        verdict = judge(scene, refined)
        found["background"].append(verdict.background)
        found["main"].append(verdict.main)
        found["layout"].append(verdict.layout)
        found["sharper"].append(sharpness(refined) > sharpness(alone))
        if show is not None:
            show(scene, refined)
    for seed, scene in enumerate(track([*islice(scenes(8, held_out=True, things=2), prompts // 2)], "two things")):
        found["both"].append(judge(scene, model.refined(say(scene, seed), seed)).all_things)
    for seed, scene in enumerate(track([*islice(scenes(9, held_out=True, things=1), prompts // 4)], "from pictures")):
        found["kept_layout"].append(_keeps_layout(model, scene, seed))
        inside, outside = _inpaints(model, scene, seed)
        found["inpainted_inside"].append(inside)
        found["inpainted_outside"].append(outside)
    return Scores(prompts, **{name: float(np.mean(values)) for name, values in found.items()})


def _keeps_layout(model: Model, scene: Scene, seed: int) -> bool:
    """A drawn scene, made again from words that say nothing of where things stand."""
    before = draw(scene, SIDE, seed)
    made = model.image_to_image(
        say(scene),
        image=before,
        strength=0.6,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=_chance(seed),
    ).images[0]
    seen = look(made).things
    return bool(seen) and stands(scene.layout, seen[:1])


def _inpaints(model: Model, scene: Scene, seed: int) -> tuple[bool, bool]:
    """The right half is painted anew; the left stays."""
    other = next(one for one in scenes(1000 + seed, things=1) if one.background == scene.background)
    before = draw(scene, SIDE, seed)
    mask = Image.new("L", before.size)
    mask.paste(255, (SIDE // 2, 0, SIDE, SIDE))
    thing = other.things[0]
    made = model.inpaint(
        f"a {thing.colour} {thing.shape} on the right on a {scene.background} background",
        image=before,
        mask_image=mask,
        strength=1.0,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=_chance(seed),
    ).images[0]
    inside = any(one.colour == thing.colour and one.shape == thing.shape for one in look(_right(made)).things)
    left = [np.asarray(one.convert("RGB"), np.int16)[:, : SIDE // 2 - 16] for one in (made, _coded(model, before))]
    return inside, bool(np.abs(left[0] - left[1]).mean() < 4)


def _right(picture: Image.Image) -> Image.Image:
    return picture.crop((SIDE // 2, 0, SIDE, SIDE))


@torch.no_grad()
def _coded(model: Model, picture: Image.Image) -> Image.Image:
    """What the VAE alone makes of it."""
    pixels = model.base.image_processor.preprocess(picture)
    made = model.base.vae.decode(model.base.vae.encode(pixels).latent_dist.mean).sample
    decoded: list[Image.Image] = model.base.image_processor.postprocess(made)
    return decoded[0]


def _chance(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
