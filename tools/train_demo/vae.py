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
PICTURES, BATCH, PART = 3_000, 24, 48
#: One batch in so many is a whole picture: attention and normalization see those later.
WHOLE = 8
#: Next to the mean absolute error of the pixels: their squared error (alone, the other stays with the median of a world
#: of few colours), that of their edges, and each latent's divergence from a normal distribution.
SQUARES, EDGES, DIVERGENCE = 4.0, 1.0, 1e-4
RATE = 6e-4


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
    _train(vae, Training(file, {"vae": vae}, steps, RATE, seed), "VAE", seed)


def train_decoder(vae: AutoencoderKL, file: Path, steps: int, seed: int) -> None:
    """Train the way back alone, or go on with what ``file`` holds: latents stay what they are."""
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    modules = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    for part in modules.values():
        part.requires_grad_(True)
    _train(vae, Training(file, modules, steps, RATE, seed + 1), "decoder", seed + 1)


def _train(vae: AutoencoderKL, training: Training, name: str, seed: int) -> None:
    steps = training.steps
    drawn = pictures(min(PICTURES, steps * BATCH) if training.step < steps else 0, seed)

    def loss_of(chance: torch.Generator) -> torch.Tensor:
        whole = int(torch.randint(WHOLE, (), generator=chance)) == 0
        side, count = (SIDE, 1) if whole else (PART, BATCH)
        chosen = torch.randint(len(drawn), (count,), generator=chance)
        top, left = (int(torch.randint(SIDE - side + 1, (), generator=chance)) for _ in range(2))
        parts = scaled(drawn[chosen, :, top : top + side, left : left + side])
        # Mirrored, now and then: one shape is then two.
        if int(torch.randint(2, (), generator=chance)):
            parts = parts.flip(-1)
        seen = vae.encode(parts).latent_dist
        mean, deviation = seen.mean, seen.std
        made = vae.decode(mean + deviation * torch.randn(mean.shape, generator=chance)).sample
        loss: torch.Tensor = (
            functional.l1_loss(made, parts)
            + SQUARES * functional.mse_loss(made, parts)
            + EDGES * sum(functional.l1_loss(made.diff(dim=axis), parts.diff(dim=axis)) for axis in (2, 3))
            + DIVERGENCE * seen.kl().mean() / mean[0].numel()
        )
        return loss

    training.run(name, loss_of)
    training.finish()


def scaled(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes as the VAE takes them, float32 from -1 to 1."""
    return pixels.float() / 127.5 - 1
