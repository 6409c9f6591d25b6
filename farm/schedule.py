"""Arithmetic of denoising schedules, without torch, so that the door can count the steps of each stage.

Counted for SDXL's noise schedule (``scaled_linear`` from 0.00085 to 0.012 over 1000 steps). The formulas are those of
table 2 in "Common Diffusion Noise Schedules and Sample Steps are Flawed" (https://arxiv.org/abs/2305.08891) and of
equation 5 in "Elucidating the Design Space of Diffusion-Based Generative Models" (https://arxiv.org/abs/2206.00364),
as diffusers' schedulers round them.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

from farm.schedulers import SDXL_OWN, Scheduler, SchedulerOptions, Spacing

#: Length of the schedule that SDXL was trained with (``num_train_timesteps`` of its scheduler).
TRAIN_TIMESTEPS = 1000
#: ``steps_offset`` of SDXL's Euler scheduler.
STEPS_OFFSET = 1
#: ``timestep_spacing`` of SDXL's Euler scheduler.
SDXL_SPACING = "leading"
#: What LCM and TCD were distilled for (``original_inference_steps``).
DISTILLED_STEPS = 50
#: The rho of Karras et al.
KARRAS_RHO = 7.0

_NO_OPTIONS = SchedulerOptions()


def timesteps(
    num_inference_steps: int, scheduler: Scheduler = SDXL_OWN, options: SchedulerOptions = _NO_OPTIONS
) -> list[float]:
    """Timesteps that the scheduler visits, from noisy to clean, one for each step.

    Schedulers of second order visit further ones between these.
    """
    given = {**scheduler.fixed, **options.given()}
    spaced = _spaced(num_inference_steps, scheduler.spacing, given.get("timestep_spacing", SDXL_SPACING))
    karras, exponential = given.get("use_karras_sigmas"), given.get("use_exponential_sigmas")
    if not (karras or exponential):
        return spaced
    if scheduler.spacing is Spacing.STEPS:
        first, last = _log_sigma(spaced[0]), _log_sigma(spaced[-1])
    else:
        first, last = _log_sigma(TRAIN_TIMESTEPS - 1), _log_sigma(0)
    ramp = [step / max(num_inference_steps - 1, 1) for step in range(num_inference_steps)]
    if karras:
        high, low = math.exp(first / KARRAS_RHO), math.exp(last / KARRAS_RHO)
        logs = [KARRAS_RHO * math.log(high + share * (low - high)) for share in ramp]
    else:
        logs = [first + share * (last - first) for share in ramp]
    if scheduler.spacing is Spacing.STEPS:
        return [_timestep(value) for value in logs]
    # Multistep solvers have whole timesteps.
    return [float(round(_timestep(value)) if karras else int(_timestep(value))) for value in logs]


def timesteps_of_sigmas(sigmas: Sequence[float]) -> list[float]:
    """Timesteps of explicit ``sigmas``, of which the last ends the schedule and is no step."""
    return [_timestep(math.log(max(sigma, 1e-10))) for sigma in sigmas[:-1]]


def after_strength(schedule: Sequence[float], strength: float) -> Sequence[float]:
    """What image to image leaves of a schedule: its last ``int(len * strength)`` steps."""
    return schedule[len(schedule) - min(int(len(schedule) * strength), len(schedule)) :]


def split_at(schedule: Sequence[float], refiner_split: float) -> tuple[int, int]:
    """How many of the steps fall to base and refiner when they share one schedule.

    The base takes the timesteps at or above the cutoff, the refiner those below it; the cutoff is rounded as
    diffusers rounds it for ``denoising_end`` and ``denoising_start``.
    """
    cutoff = round(TRAIN_TIMESTEPS - refiner_split * TRAIN_TIMESTEPS)
    base = sum(timestep >= cutoff for timestep in schedule)
    return base, len(schedule) - base


def split_steps(num_inference_steps: int, refiner_split: float) -> tuple[int, int]:
    """``split_at`` for so many steps of SDXL's own scheduler."""
    return split_at(timesteps(num_inference_steps), refiner_split)


def _spaced(steps: int, kind: Spacing, spacing: str) -> list[float]:
    last = TRAIN_TIMESTEPS - 1
    if kind is Spacing.DISTILLED:
        stride = TRAIN_TIMESTEPS // DISTILLED_STEPS
        return [float((DISTILLED_STEPS - DISTILLED_STEPS * step // steps) * stride - 1) for step in range(steps)]
    if kind is Spacing.STEPS_AND_ONE and spacing == "linspace":
        return [float(round(last * step / steps)) for step in range(steps, 0, -1)]
    if spacing == "linspace":
        return [last * step / max(steps - 1, 1) for step in range(steps - 1, -1, -1)]
    if spacing == "trailing":
        return [float(round(TRAIN_TIMESTEPS - step * TRAIN_TIMESTEPS / steps) - 1) for step in range(steps)]
    extra = 1 if kind is Spacing.STEPS_AND_ONE else 0
    stride = TRAIN_TIMESTEPS // (steps + extra)
    return [float((step + extra) * stride + STEPS_OFFSET) for step in range(steps - 1, -1, -1)]


@cache
def _log_sigmas() -> list[float]:
    """Logarithms of sigma, the ratio of noise to signal, at each timestep of SDXL's training."""
    low, high = math.sqrt(0.00085), math.sqrt(0.012)
    logs, signal = [], 1.0
    for step in range(TRAIN_TIMESTEPS):
        signal *= 1 - (low + (high - low) * step / (TRAIN_TIMESTEPS - 1)) ** 2
        logs.append(0.5 * math.log((1 - signal) / signal))
    return logs


def _log_sigma(timestep: float) -> float:
    """The logarithm of sigma at a timestep, between whole ones by linear interpolation of sigma."""
    logs = _log_sigmas()
    below = min(int(timestep), TRAIN_TIMESTEPS - 2)
    share = timestep - below
    return math.log((1 - share) * math.exp(logs[below]) + share * math.exp(logs[below + 1]))


def _timestep(log_sigma: float) -> float:
    """The timestep of a sigma, by linear interpolation of its logarithm."""
    logs = _log_sigmas()
    below = min(max(bisect_right(logs, log_sigma) - 1, 0), TRAIN_TIMESTEPS - 2)
    share = (log_sigma - logs[below]) / (logs[below + 1] - logs[below])
    return below + min(max(share, 0.0), 1.0)
