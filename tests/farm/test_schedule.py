"""Base and refiner partition the full schedule, and the door counts as diffusers does."""

from pathlib import Path

import pytest
from conformance import reference
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.schedule import TRAIN_TIMESTEPS, split_steps, timesteps
from worker.tiny import write_tiny_checkpoint

STEPS = st.integers(1, 200)
SPLITS = st.floats(0.001, 0.999)


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionXLImg2ImgPipeline:
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_tiny_checkpoint(directory)
    return reference.pipelines(Path(directory))[1]


def full_schedule(refiner: StableDiffusionXLImg2ImgPipeline, steps: int) -> list[int]:
    scheduler = EulerDiscreteScheduler.from_config(refiner.scheduler.config)
    scheduler.set_timesteps(steps)
    return [int(timestep) for timestep in scheduler.timesteps]


@given(STEPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_our_timesteps_are_the_schedulers(refiner: StableDiffusionXLImg2ImgPipeline, steps: int) -> None:
    assert timesteps(steps) == full_schedule(refiner, steps)


@given(STEPS, SPLITS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_base_and_refiner_partition_the_schedule(
    refiner: StableDiffusionXLImg2ImgPipeline, steps: int, split: float
) -> None:
    whole = full_schedule(refiner, steps)
    # What StableDiffusionXLPipeline.__call__ keeps for denoising_end.
    cutoff = round(TRAIN_TIMESTEPS - split * TRAIN_TIMESTEPS)
    of_base = [timestep for timestep in whole if timestep >= cutoff]
    refiner.scheduler.set_timesteps(steps)
    kept, count = refiner.get_timesteps(steps, strength=0.3, device="cpu", denoising_start=split)
    of_refiner = [int(timestep) for timestep in kept][len(kept) - count :] if count else []

    assert of_base + of_refiner == whole
    assert split_steps(steps, split) == (len(of_base), len(of_refiner))
