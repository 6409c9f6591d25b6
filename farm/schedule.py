"""Arithmetic of SDXL's denoising schedule, without torch, so that the door can check a split."""

#: Length of the schedule that SDXL was trained with (``num_train_timesteps`` of its scheduler).
TRAIN_TIMESTEPS = 1000
#: ``steps_offset`` of SDXL's Euler scheduler.
STEPS_OFFSET = 1


def timesteps(num_inference_steps: int) -> list[int]:
    """Timesteps that SDXL's Euler scheduler visits, from noisy to clean.

    SDXL's scheduler spaces them "leading", as in table 2 of "Common Diffusion Noise Schedules and Sample
    Steps are Flawed" (https://arxiv.org/abs/2305.08891): whole strides of
    ``TRAIN_TIMESTEPS // num_inference_steps``, plus the offset.
    """
    stride = TRAIN_TIMESTEPS // num_inference_steps
    return [step * stride + STEPS_OFFSET for step in reversed(range(num_inference_steps))]


def split_steps(num_inference_steps: int, refiner_split: float) -> tuple[int, int]:
    """How many of the steps fall to base and refiner when they share one schedule.

    The base takes the timesteps at or above the cutoff, the refiner those below it; the cutoff is rounded as
    diffusers rounds it for ``denoising_end`` and ``denoising_start``.
    """
    cutoff = round(TRAIN_TIMESTEPS - refiner_split * TRAIN_TIMESTEPS)
    base = sum(timestep >= cutoff for timestep in timesteps(num_inference_steps))
    return base, num_inference_steps - base
