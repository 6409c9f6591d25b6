"""The text encoders: before any picture is seen they learn to tell what is where.

SDXL's encoders knew pictures from CLIP before its UNet was trained. These are asked, of each cell of a grid over the
picture, which colour and shape is there: what cross-attention will ask them later.
"""

from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from tools.train_demo.captions import say
from tools.train_demo.loop import Training
from tools.train_demo.models import TEXT_2_DIM, TEXT_DIM, Text
from tools.train_demo.world import COLOURS, PLACES, SIZES, Scene, Shape, Style, scenes

#: Cells along a side.
GRID = 8
BATCH = 64
RATE = 1e-3
#: What is asked of a cell: its colour, and its shape, of which the last is none.
CHOICES = len(COLOURS), len(Shape) + 1
SCENES = 24_000


class Asking(nn.Module):
    """Asks the encoders' states about each cell, as the UNet's transformer blocks do; it is thrown away after."""

    def __init__(self) -> None:
        super().__init__()
        width = TEXT_DIM + TEXT_2_DIM
        self.places = nn.Parameter(torch.randn(GRID * GRID, width) * 0.1)
        self.attentions = nn.ModuleList(nn.MultiheadAttention(width, 8, batch_first=True) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(2)
        )
        self.answers = nn.Linear(width, sum(CHOICES))
        self.summary = nn.Linear(TEXT_2_DIM, len(COLOURS) + len(Style))

    def forward(self, states: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of each cell, (texts, cells, colours and shapes), and of the whole, (texts, colours and styles)."""
        asked = self.places.expand(len(states), -1, -1)
        for norm, attention, hidden in zip(self.norms, self.attentions, self.hidden, strict=False):
            asked = asked + attention(norm(asked), states, states, need_weights=False)[0]
            asked = asked + hidden(asked)
        return self.answers(self.norms[-1](asked)), self.summary(pooled)


def cells(scene: Scene) -> tuple[list[int], list[int]]:
    """The colour and the shape of each cell, by number; rows from the top. Things are taken for squares."""
    names, shapes = [*COLOURS], [*Shape]
    colours, forms = [], []
    for number in range(GRID * GRID):
        x, y = (number % GRID + 0.5) / GRID, (number // GRID + 0.5) / GRID
        here = [
            thing
            for thing, (column, row) in zip(scene.things, PLACES[scene.layout], strict=True)
            if max(abs(x - column), abs(y - row)) < SIZES[thing.size]
        ]
        colours.append(names.index(here[0].colour if here else scene.background))
        forms.append(shapes.index(here[0].shape) if here else len(shapes))
    return colours, forms


def train(text: Text, file: Path, steps: int, seed: int) -> None:
    """Train both encoders, or go on with what ``file`` holds."""
    asking = Asking()
    training = Training(file, {"text": text.encoder, "text_2": text.encoder_2, "asking": asking}, steps, RATE, seed)
    chosen = [*islice(scenes(seed), min(SCENES, steps * BATCH) if training.step < steps else 0)]
    seen = torch.tensor([cells(scene) for scene in chosen])
    styles = torch.tensor([[*Style].index(scene.style) for scene in chosen])
    grounds = torch.tensor([[*COLOURS].index(scene.background) for scene in chosen])

    def loss_of(chance: torch.Generator) -> torch.Tensor:
        numbers = torch.randint(len(chosen), (BATCH,), generator=chance)
        words = torch.randint(2**31, (BATCH,), generator=chance)
        captions = [say(chosen[one], word) for one, word in zip(numbers.tolist(), words.tolist(), strict=True)]
        told, whole = asking(*text.encode(text.tokens(captions)))
        colours, forms = seen[numbers].unbind(1)
        # Cells of things are few: they and the background count the same.
        thing = forms < len(Shape)
        weight = torch.where(thing, 0.5 / thing.sum(), 0.5 / (~thing).sum())
        loss = torch.zeros(())
        for logits, right in zip(told.split(CHOICES, dim=2), (colours, forms), strict=True):
            errors = functional.cross_entropy(logits.flatten(0, 1), right.flatten(), reduction="none")
            loss = loss + (errors * weight.flatten()).sum()
        summaries = whole.split((len(COLOURS), len(Style)), dim=1)
        for logits, right in zip(summaries, (grounds[numbers], styles[numbers]), strict=True):
            loss = loss + functional.cross_entropy(logits, right)
        return loss

    training.run("text", loss_of)
    training.finish()
