"""The VAE: pictures to latents an eighth as wide and back. Trained on parts of pictures, used on whole ones."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.progress import track
from torch.nn import functional

from tools.train_demo.loop import Training
from tools.train_demo.models import SIDE
from tools.train_demo.world import draw, scenes

#: Pictures that are drawn in advance, and how many parts of them, of how many pixels a side, make one batch.
PICTURES, BATCH, PART = 3_000, 12, 128
#: Next to the mean absolute error of the pixels: that of their edges, and each latent's divergence from a normal
#: distribution.
EDGES, DIVERGENCE = 1.0, 1e-3
RATE = 2e-3


def pictures(count: int, seed: int) -> torch.Tensor:
    """Drawn scenes, uint8 (count, 3, 256, 256)."""
    drawn = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    for number, scene in enumerate(track(islice(scenes(seed), count), "drawing", total=count)):
        drawn[number] = torch.from_numpy(np.asarray(draw(scene, SIDE, seed * 1_000_003 + number)).copy()).permute(
            2, 0, 1
        )
    return drawn


def train(vae: AutoencoderKL, file: Path, steps: int, seed: int) -> None:
    """Train it, or go on with what ``file`` holds."""
    training = Training(file, {"vae": vae}, steps, RATE, seed)
    drawn = pictures(PICTURES if training.step < steps else 0, seed)

    def loss_of(chance: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(PICTURES, (BATCH,), generator=chance)
        top, left = (int(torch.randint(SIDE - PART + 1, (), generator=chance)) for _ in range(2))
        parts = scaled(drawn[chosen, :, top : top + PART, left : left + PART])
        # Mirrored, now and then: one shape is then two.
        if int(torch.randint(2, (), generator=chance)):
            parts = parts.flip(-1)
        seen = vae.encode(parts).latent_dist
        mean, deviation = seen.mean, seen.std
        made = vae.decode(mean + deviation * torch.randn(mean.shape, generator=chance)).sample
        loss: torch.Tensor = (
            functional.l1_loss(made, parts)
            + EDGES * sum(functional.l1_loss(made.diff(dim=axis), parts.diff(dim=axis)) for axis in (2, 3))
            + DIVERGENCE * seen.kl().mean() / mean[0].numel()
        )
        return loss

    training.run("VAE", loss_of)
    training.finish()


def scaled(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes as the VAE takes them, float32 from -1 to 1."""
    return pixels.float() / 127.5 - 1
