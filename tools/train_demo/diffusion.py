"""The UNets, with the text encoders: they learn to tell the noise in noisy latents, as SDXL's did."""

from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from tools.train_demo.captions import say
from tools.train_demo.latents import Latents
from tools.train_demo.loop import Training
from tools.train_demo.models import SIDE, Text

BATCH = 64
RATE = 1.5e-3
#: So often the text is left out, so that it can be guided by the difference.
UNSAID = 0.1
#: Of each channel's noise, the part that all its pixels share: the latents' mean must come from the text.
OFFSET = 0.15
#: Timesteps are weighted by the ratio of signal to noise, up to this (Hang et al. 2023, "Min-SNR").
MOST_SNR = 5.0
#: The refiner knows the last fifth of the schedule only, as SDXL's does.
REFINED = 200


def noise_schedule() -> DDPMScheduler:
    """SDXL's."""
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)


def train_base(unet: UNet2DConditionModel, text: Text, data: Latents, file: Path, steps: int, seed: int) -> None:
    """Train the base with both text encoders, or go on with what ``file`` holds."""
    modules = {"unet": unet, "text": text.encoder, "text_2": text.encoder_2}
    training = Training(file, modules, steps, RATE, seed)
    schedule, factor = noise_schedule(), data.scaling_factor

    def loss_of(chance: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(data.scenes), (BATCH,), generator=chance)
        states, pooled = text.encode(text.tokens(_captions(data, chosen, chance)))
        said = (torch.rand(BATCH, generator=chance) >= UNSAID).float()[:, None]
        # What the pipeline gives for an empty negative prompt is zero.
        states, pooled = states * said[:, :, None], pooled * said
        sizes = data.originals[chosen][:, None].expand(-1, 2)
        time_ids = torch.cat([sizes, data.cuts[chosen], torch.full((BATCH, 2), SIDE)], dim=1).float()
        timesteps = torch.randint(schedule.config.num_train_timesteps, (BATCH,), generator=chance)
        return _loss(unet, schedule, data.values[chosen].float() * factor, timesteps, states, pooled, time_ids, chance)

    training.run("base", loss_of)
    training.finish()


def train_refiner(unet: UNet2DConditionModel, text: Text, data: Latents, file: Path, steps: int, seed: int) -> None:
    """Train the refiner on the last part of the schedule; the text encoder is the base's and stays as it is."""
    training = Training(file, {"unet": unet}, steps, RATE, seed)
    schedule, factor = noise_schedule(), data.scaling_factor

    def loss_of(chance: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(data.scenes), (BATCH,), generator=chance)
        captions = _captions(data, chosen, chance)
        unsaid = torch.rand(BATCH, generator=chance) < UNSAID
        # The refiner's pipeline encodes an empty negative prompt as it is.
        captions = ["" if one else caption for one, caption in zip(unsaid.tolist(), captions, strict=True)]
        with torch.no_grad():
            states, pooled = text.encode_2(text.tokens(captions))
        sizes = data.originals[chosen][:, None].expand(-1, 2)
        # The score tells how sharp it is; the size is always said to be whole.
        sizes = torch.full_like(sizes, SIDE)
        time_ids = torch.cat([sizes.float(), data.cuts[chosen].float(), data.scores(chosen)[:, None]], dim=1)
        timesteps = torch.randint(REFINED, (BATCH,), generator=chance)
        return _loss(unet, schedule, data.values[chosen].float() * factor, timesteps, states, pooled, time_ids, chance)

    training.run("refiner", loss_of)
    training.finish()


def _captions(data: Latents, chosen: torch.Tensor, chance: torch.Generator) -> list[str]:
    words = torch.randint(2**31, (len(chosen),), generator=chance)
    return [say(data.scenes[scene], word) for scene, word in zip(chosen.tolist(), words.tolist(), strict=True)]


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
    """Mean squared error of the noise that is told, weighted."""
    noise = torch.randn(latents.shape, generator=chance)
    noise = noise + OFFSET * torch.randn(latents.shape[:2], generator=chance)[:, :, None, None]
    noisy = schedule.add_noise(latents, noise, timesteps)
    conditions = {"text_embeds": pooled, "time_ids": time_ids}
    told = unet(noisy, timesteps, states, added_cond_kwargs=conditions).sample
    signal = schedule.alphas_cumprod[timesteps]
    ratio = signal / (1 - signal)
    weight = ratio.clamp(max=MOST_SNR) / ratio
    loss: torch.Tensor = (weight * (told - noise).square().mean(dim=(1, 2, 3))).mean()
    return loss
