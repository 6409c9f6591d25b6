"""How well the packed model does: tasks that it was never told, judged by a program."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from tools.train_demo.world import Layout, Scene, draw, scenes, visible_on

STEPS, SPLIT, GUIDANCE = 20, 0.8, 3.5
#: How much image to image may change, and inpainting.
STRENGTH, PAINTED = 0.6, 1.0
#: Micro-conditions of a small original and of a view that begins further right and below, and a low aesthetic score.
SMALL, CUT, DISLIKED = (64, 64), (32, 32), 2.0
#: How far such a view must move what is in it, of the picture's side; in full it is an eighth.
MOVED = 0.04
#: Where nothing is painted pixels may differ by so much, of 255, on average; the VAE alone changes them a little.
SAME = 4.0
#: Next to what is painted pixels may change: the mask is laid over latents of eight pixels.
RIM = 16


@dataclass(frozen=True)
class Task:
    """What is asked, and what should be seen."""

    prompt: str
    seed: int
    scene: Scene
    image: Image.Image | None = None
    mask: Image.Image | None = None


def from_words(count: int, *, things: int | None = None) -> list[Task]:
    """Prompts that hold something never told: a shape in a colour on a background."""
    chosen = islice(scenes(7 if things is None else 8, held_out=True, things=things), count)
    return [Task(say(scene, seed), seed, scene) for seed, scene in enumerate(chosen)]


def from_pictures(count: int) -> list[Task]:
    """Pictures of one thing, to be made again in another colour, from words that say nothing of where it stands."""
    tasks = []
    for seed, before in enumerate(islice(scenes(9, things=1), count)):
        others = [name for name in visible_on(before.background) if name != before.things[0].colour]
        thing = dataclasses.replace(before.things[0], colour=others[seed % len(others)])
        scene = dataclasses.replace(before, things=(thing,))
        tasks.append(Task(say(scene, placed=False), seed, scene, draw(before, SIDE, seed)))
    return tasks


def parts_of_pictures(count: int) -> list[Task]:
    """Pictures of two things next to each other, of which the right one is to be painted anew."""
    tasks = []
    chosen = (one for one in scenes(10, things=2) if one.layout is Layout.LEFT_OF)
    for seed, before in enumerate(islice(chosen, count)):
        other = next(
            one
            for one in scenes(1000 + seed, things=2)
            if (one.background, one.style) == (before.background, before.style) and one.things[1] != before.things[0]
        )
        scene = dataclasses.replace(before, things=(before.things[0], other.things[1]))
        mask = Image.new("L", (SIDE, SIDE))
        mask.paste(255, (SIDE // 2, 0, SIDE, SIDE))
        tasks.append(Task(say(scene), seed, scene, draw(before, SIDE, seed), mask))
    return tasks


def keeps_layout(task: Task, made: Image.Image) -> bool:
    """Whether the main thing has its new colour and stands where it stood."""
    seen = look(made).things[:1]
    return bool(seen) and seen[0].colour == task.scene.things[0].colour and stands(task.scene.layout, seen)


def paints_inside(task: Task, made: Image.Image) -> bool:
    """Whether what was painted is what was asked for."""
    asked = task.scene.things[1]
    return any((one.colour, one.shape) == (asked.colour, asked.shape) and one.x > 0.5 for one in look(made).things)


def leaves_the_rest(task: Task, made: Image.Image) -> bool:
    """Whether nothing else has changed."""
    if task.image is None:
        raise ValueError("the task has no picture")
    left = [np.asarray(one.convert("RGB"), np.float32)[:, : SIDE // 2 - RIM] for one in (made, task.image)]
    return bool(np.abs(left[0] - left[1]).mean() < SAME)


def is_moved(cut: Image.Image, whole: Image.Image) -> bool:
    """Whether the main thing of one picture stands further left and higher than that of the other."""
    pair = [look(made).things[:1] for made in (cut, whole)]
    if not all(pair):
        return False
    ((one,), (other,)) = pair
    return one.x < other.x - MOVED and one.y < other.y - MOVED


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
    """Base and refiner give sharper edges than the base alone."""
    kept_layout: float
    """Image to image keeps where the thing stands, and gives it its new colour."""
    inpainted_inside: float
    """Inpainting draws what the prompt says within the mask."""
    inpainted_outside: float
    """And changes nothing elsewhere."""
    small_is_softer: float
    """Less sharp edges where the original is said to be small,"""
    disliked_is_softer: float
    """and where the refiner is told a low aesthetic score."""
    cut_is_moved: float
    """A view that begins further right and below has the thing further left and higher."""


class Model:
    """The packed model in diffusers' own pipelines."""

    def __init__(self, directory: Path) -> None:
        self.base = StableDiffusionXLPipeline.from_pretrained(directory / "base", dtype=torch.float32)
        self.refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(directory / "refiner", dtype=torch.float32)
        self.image_to_image = StableDiffusionXLImg2ImgPipeline(**self.base.components)
        self.inpaint = StableDiffusionXLInpaintPipeline(**self.base.components)
        for pipeline in (self.base, self.refiner, self.image_to_image, self.inpaint):
            pipeline.set_progress_bar_config(disable=True)

    def alone(self, task: Task, **conditions: object) -> Image.Image:
        """By the base alone."""
        if task.image is None:
            return self._draw(self.base, task, width=SIDE, height=SIDE, **conditions)
        if task.mask is None:
            return self._draw(self.image_to_image, task, image=task.image, strength=STRENGTH)
        return self._draw(self.inpaint, task, image=task.image, mask_image=task.mask, strength=PAINTED)

    def refined(self, task: Task, **conditions: object) -> Image.Image:
        """By base and refiner."""
        latents: Any = self._draw(self.base, task, width=SIDE, height=SIDE, denoising_end=SPLIT, output_type="latent")
        return self._draw(self.refiner, task, image=latents[None], denoising_start=SPLIT, **conditions)

    def _draw(self, pipeline: Any, task: Task, **more: object) -> Image.Image:
        options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, **more}
        drawn: list[Image.Image] = pipeline(
            task.prompt, generator=torch.Generator("cpu").manual_seed(task.seed), **options
        ).images
        return drawn[0]


def score(directory: Path, prompts: int, *, show: Callable[[Task, Image.Image], None] | None = None) -> Scores:
    """Judge the model on so many prompts, half as many of two things, and a quarter for all else.

    ``show`` sees the tasks with their pictures.
    """
    model = Model(directory)

    def all_of(tasks: Sequence[Task], what: str, make: Callable[[Task], Image.Image]) -> list[Image.Image]:
        made = []
        for task in track(tasks, what):
            made.append(make(task))
            if show is not None:
                show(task, made[-1])
        return made

    asked, two = from_words(prompts), from_words(prompts // 2, things=2)
    again, painted = from_pictures(prompts // 4), parts_of_pictures(prompts // 4)
    one = from_words(prompts // 4, things=1)
    refined, alone = all_of(asked, "base and refiner", model.refined), all_of(asked, "base alone", model.alone)
    verdicts = [judge(task.scene, made) for task, made in zip(asked, refined, strict=True)]
    both = all_of(two, "two things", model.refined)
    made_again = all_of(again, "image to image", model.alone)
    made_in_part = all_of(painted, "inpainting", model.alone)
    whole = all_of(one, "one thing", model.alone)
    small = all_of(one, "of a small original", partial(model.alone, original_size=SMALL))
    cut = all_of(one, "a part", partial(model.alone, crops_coords_top_left=CUT))
    liked = all_of(one, "liked", model.refined)
    disliked = all_of(one, "disliked", partial(model.refined, aesthetic_score=DISLIKED))
    return Scores(
        prompts,
        background=_share([verdict.background for verdict in verdicts]),
        main=_share([verdict.main for verdict in verdicts]),
        layout=_share([verdict.layout for verdict in verdicts]),
        sharper=_sharper(refined, alone),
        both=_share([judge(task.scene, made).all_things for task, made in zip(two, both, strict=True)]),
        kept_layout=_share([keeps_layout(task, made) for task, made in zip(again, made_again, strict=True)]),
        inpainted_inside=_share([paints_inside(task, made) for task, made in zip(painted, made_in_part, strict=True)]),
        inpainted_outside=_share(
            [leaves_the_rest(task, made) for task, made in zip(painted, made_in_part, strict=True)]
        ),
        small_is_softer=_sharper(whole, small),
        disliked_is_softer=_sharper(liked, disliked),
        cut_is_moved=_share([is_moved(part, all_) for part, all_ in zip(cut, whole, strict=True)]),
    )


def _sharper(ones: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    return _share([sharpness(one) > sharpness(other) for one, other in zip(ones, others, strict=True)])


def _share(right: Sequence[bool]) -> float:
    return float(np.mean(right))
