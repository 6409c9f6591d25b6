"""The UNets: they learn to tell latents from their noise, as SDXL's did; the text encoders stay as they are."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from farm.schedule import TRAIN_TIMESTEPS
from tools.train_demo.captions import say
from tools.train_demo.latents import Latents
from tools.train_demo.loop import Training
from tools.train_demo.models import SIDE, Text

BATCH = 32
RATE = 8e-4
#: So often the text is left out, so that it can be guided by the difference.
UNSAID = 0.1
#: Below this timestep things can be seen through the noise, and so often it is not said where one stands: pictures
#: that are made again keep it.
SEEN, UNPLACED = 700, 0.3
#: Of each channel's noise, the part that all its pixels share: the latents' mean must come from the text.
OFFSET = 0.15
#: Timesteps count as an error of the latents would, as often as the noise is weaker than they are, up to this (Hang et
#: al. 2023, "Min-SNR"); those that are noise count once, as an error of the velocity would.
MOST_WEIGHT = 5.0
#: The refiner knows the last fifth of the schedule only, as SDXL's does.
REFINED = 200
#: The base leaves most of it to the refiner: of what falls there so much is moved to the rest of the schedule.
LEFT_TO_REFINER = 0.75


def noise_schedule() -> DDPMScheduler:
    """SDXL's."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=TRAIN_TIMESTEPS
    )


#: Of scenes, their captions, and which are to be left out: the text encoders' states, what they pool, the other
#: micro-conditions.
Conditions = Callable[[torch.Tensor, list[str], torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def train_base(unet: UNet2DConditionModel, text: Text, data: Latents, file: Path, steps: int, seed: int) -> None:
    """Train the base on the whole schedule, or go on with what ``file`` holds."""

    def conditions(
        chosen: torch.Tensor, captions: list[str], unsaid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        states, pooled = text.encode(text.tokens(captions))
        # What the pipeline gives for an empty negative prompt is zero.
        said = (~unsaid).float()[:, None]
        sizes = data.originals[chosen][:, None].expand(-1, 2)
        whole = torch.full((len(chosen), 2), SIDE)
        return states * said[:, :, None], pooled * said, torch.cat([sizes, data.cuts[chosen], whole], dim=1).float()

    def timesteps(chance: torch.Generator) -> torch.Tensor:
        any_of_all = torch.randint(TRAIN_TIMESTEPS, (BATCH,), generator=chance)
        others = torch.randint(REFINED, TRAIN_TIMESTEPS, (BATCH,), generator=chance)
        moved = (any_of_all < REFINED) & (torch.rand(BATCH, generator=chance) < LEFT_TO_REFINER)
        return torch.where(moved, others, any_of_all)

    _train(Training(file, {"unet": unet}, steps, RATE, seed), "base", unet, data, conditions, timesteps)


def train_refiner(unet: UNet2DConditionModel, text: Text, data: Latents, file: Path, steps: int, seed: int) -> None:
    """Train the refiner on the last part of the schedule, or go on with what ``file`` holds."""

    def conditions(
        chosen: torch.Tensor, captions: list[str], unsaid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # The refiner's pipeline encodes an empty negative prompt as it is.
        heard = ["" if one else caption for one, caption in zip(unsaid.tolist(), captions, strict=True)]
        states, pooled = text.encode_2(text.tokens(heard))
        # The score tells how sharp it is; the size is always said to be whole.
        whole = torch.full((len(chosen), 2), SIDE)
        rest = [data.cuts[chosen].float(), data.scores(chosen)[:, None]]
        return states, pooled, torch.cat([whole.float(), *rest], dim=1)

    def timesteps(chance: torch.Generator) -> torch.Tensor:
        return torch.randint(REFINED, (BATCH,), generator=chance)

    _train(Training(file, {"unet": unet}, steps, RATE, seed), "refiner", unet, data, conditions, timesteps)


def _train(
    training: Training,
    name: str,
    unet: UNet2DConditionModel,
    data: Latents,
    conditions: Conditions,
    timesteps: Callable[[torch.Generator], torch.Tensor],
) -> None:
    schedule, factor = noise_schedule(), data.scaling_factor

    def loss_of(chance: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(data.scenes), (BATCH,), generator=chance)
        times = timesteps(chance)
        placed = (times >= SEEN) | (torch.rand(BATCH, generator=chance) >= UNPLACED)
        captions = _captions(data, chosen, placed, chance)
        unsaid = torch.rand(BATCH, generator=chance) < UNSAID
        with torch.no_grad():
            told = conditions(chosen, captions, unsaid)
        latents = data.values[chosen].float() * factor
        return _loss(unet, schedule, latents, times, *told, chance)

    training.run(name, loss_of)
    training.finish()


def _captions(data: Latents, chosen: torch.Tensor, placed: torch.Tensor, chance: torch.Generator) -> list[str]:
    words = torch.randint(2**31, (len(chosen),), generator=chance)
    each = zip(chosen.tolist(), words.tolist(), placed.tolist(), strict=True)
    return [say(data.scenes[scene], word, placed=told) for scene, word, told in each]


def _loss(
    unet: UNet2DConditionModel,
    schedule: DDPMScheduler,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    states: torch.Tensor,
    pooled: torch.Tensor,
    time_ids: torch.Tensor,
    chance: torch.Generator,
) -> torch.Tensor:
    """Mean squared error of the velocity that is told, weighted."""
    noise = torch.randn(latents.shape, generator=chance)
    noise = noise + OFFSET * torch.randn(latents.shape[:2], generator=chance)[:, :, None, None]
    noisy = schedule.add_noise(latents, noise, timesteps)
    conditions = {"text_embeds": pooled, "time_ids": time_ids}
    told = unet(noisy, timesteps, states, added_cond_kwargs=conditions).sample
    # Of the latents an error is 1 - alphas_cumprod times that of the velocity, squared.
    signal = schedule.alphas_cumprod[timesteps]
    weight = (1 - signal) * (1 / (1 - signal)).clamp(max=MOST_WEIGHT)
    squares = (told - schedule.get_velocity(latents, noise, timesteps)).square().mean(dim=(1, 2, 3))
    loss: torch.Tensor = (weight * squares).mean()
    return loss
