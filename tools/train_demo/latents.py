"""What the UNets learn from: latents of many scenes, with what the micro-conditions say of each."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from rich.progress import track
from safetensors.torch import load_file, save_file

from tools.train_demo.models import SIDE
from tools.train_demo.vae import scaled
from tools.train_demo.world import Scene, draw, scenes

#: Of the pictures so many come from smaller ones, and are blurred; so many are cut out of a wider view.
BLURRED, CUT = 0.15, 0.15
SMALLEST_ORIGINAL = 48
WIDEST_CUT = 40
#: The aesthetic score of a sharp picture, and how much of it the most blurred one lacks.
SCORE, SCORE_LOST = 6.5, 4.5
AT_ONCE = 16


@dataclass(frozen=True)
class Latents:
    """Scenes, and their latents before they are scaled."""

    scenes: list[Scene]
    values: torch.Tensor
    """float16 (scenes, 4, 32, 32)"""
    originals: torch.Tensor
    """Side of the picture each was made from, int64 (scenes,)."""
    cuts: torch.Tensor
    """How far from its upper left each begins, as (top, left), int64 (scenes, 2)."""

    @property
    def scaling_factor(self) -> float:
        """Makes them of variance 1, as SDXL's is."""
        return 1 / float(self.values.float().std())

    def scores(self, chosen: torch.Tensor) -> torch.Tensor:
        """Aesthetic scores of some: blurred pictures are less liked."""
        lost = 1 - (self.originals[chosen] - SMALLEST_ORIGINAL) / (SIDE - SMALLEST_ORIGINAL)
        return SCORE - SCORE_LOST * lost


def view(scene: Scene, seed: int) -> tuple[Image.Image, int, tuple[int, int]]:
    """A picture of a scene, the side of what it was made from, and where it was cut out."""
    chance = np.random.default_rng(seed)
    kind = chance.random()
    if kind < BLURRED:
        side = int(chance.integers(SMALLEST_ORIGINAL, SIDE))
        small = draw(scene, side, seed)
        return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), side, (0, 0)
    if kind < BLURRED + CUT:
        top, left = (int(number) for number in chance.integers(0, WIDEST_CUT + 1, 2))
        # What lies beyond the right and lower edge is background, and so is what comes in there.
        whole = draw(scene, SIDE, seed)
        wide = Image.new("RGB", (SIDE + left, SIDE + top), whole.getpixel((0, 0)))
        wide.paste(whole)
        return wide.crop((left, top, left + SIDE, top + SIDE)), SIDE, (top, left)
    return draw(scene, SIDE, seed), SIDE, (0, 0)


@torch.no_grad()
def make(vae: AutoencoderKL, file: Path, count: int, seed: int) -> Latents:
    """Latents of so many scenes; what ``file`` holds is taken as it is."""
    chosen = [*islice(scenes(seed), count)]
    if not file.exists():
        values, originals, cuts = [], [], []
        for start in track(range(0, count, AT_ONCE), "latents"):
            views = [
                view(scene, seed * 1_000_003 + start + n) for n, scene in enumerate(chosen[start : start + AT_ONCE])
            ]
            pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture, _, _ in views])).permute(0, 3, 1, 2)
            values.append(vae.encode(scaled(pixels)).latent_dist.mean.half())
            originals += [side for _, side, _ in views]
            cuts += [cut for _, _, cut in views]
        stored = {
            "values": torch.cat(values).contiguous(),
            "originals": torch.tensor(originals),
            "cuts": torch.tensor(cuts),
        }
        save_file(stored, file)
    read = load_file(file)
    return Latents(chosen, read["values"], read["originals"], read["cuts"])
