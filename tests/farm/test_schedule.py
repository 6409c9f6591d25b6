"""Base and refiner partition the full schedule, and the door counts as diffusers does."""

import inspect
from pathlib import Path

import diffusers
import pytest
from conformance import reference
from conformance.cases import parameters
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from farm.catalog import Catalog
from farm.errors import RenderInterrupted
from farm.schedule import TRAIN_TIMESTEPS, split_steps, timesteps
from farm.schedulers import SCHEDULERS, Scheduler, SchedulerOptions, normal_name
from farm.states import Stage
from worker import stages
from worker.pipelines import LoadedPipeline, load

STEPS = st.integers(1, TRAIN_TIMESTEPS)
# Any fraction, and those whose cutoff falls on a timestep, between two, or on a half that must be rounded.
SPLITS = st.floats(0.0001, 0.9999) | st.integers(1, 1999).map(lambda halves: halves / 2000)


@pytest.fixture(scope="module")
def pipeline(models_directory: Path) -> LoadedPipeline:
    return load(Catalog.load().get("tiny"), models_directory, "cpu", frozenset(Stage))


@pytest.fixture(scope="module")
def refiner(pipeline: LoadedPipeline, models_directory: Path) -> StableDiffusionXLImg2ImgPipeline:
    refiner: StableDiffusionXLImg2ImgPipeline = reference.load(
        StableDiffusionXLImg2ImgPipeline, models_directory / "tiny" / "refiner", watermark=False
    )
    return refiner


def full_schedule(refiner: StableDiffusionXLImg2ImgPipeline, steps: int) -> list[float]:
    scheduler = EulerDiscreteScheduler.from_config(refiner.scheduler.config)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


@given(STEPS)
@example(1)
@example(999)
@example(1000)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_our_timesteps_are_the_schedulers(refiner: StableDiffusionXLImg2ImgPipeline, steps: int) -> None:
    assert timesteps(steps) == full_schedule(refiner, steps)


SIGMAS = {"use_karras_sigmas", "use_exponential_sigmas"}
OPTIONS = [
    {},
    *({"timestep_spacing": spacing} for spacing in ("leading", "linspace", "trailing")),
    *({sigmas: True} for sigmas in ("use_karras_sigmas", "use_exponential_sigmas")),
    {"use_karras_sigmas": True, "timestep_spacing": "trailing"},
]


@pytest.mark.parametrize("entry", SCHEDULERS.values(), ids=SCHEDULERS)
def test_every_scheduler_visits_the_timesteps_that_are_counted(
    refiner: StableDiffusionXLImg2ImgPipeline, entry: Scheduler
) -> None:
    for options in OPTIONS:
        if not options.keys() <= entry.options:
            continue
        for steps in (2, 3, 7, 10, 25, 50):
            scheduler = getattr(diffusers, entry.class_name).from_config(
                refiner.scheduler.config, **entry.fixed, **options
            )
            scheduler.set_timesteps(steps)
            visited = scheduler.timesteps.tolist()
            if scheduler.order == 2:
                # Between its steps it visits further timesteps, or the same ones twice.
                visited = visited[:1] + visited[2::2]
            if entry.name == "pndm":
                # Its second step is taken twice.
                visited = visited[:2] + visited[3:]
            counted = timesteps(steps, entry, SchedulerOptions(**options))
            # Those made from sigmas are rounded, or cut off, after a logarithm.
            assert counted == pytest.approx(visited, abs=1.01 if set(options) & SIGMAS else 0.51), (options, steps)


@pytest.mark.parametrize("entry", SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_table_knows_what_diffusers_schedulers_take(entry: Scheduler) -> None:
    kind = getattr(diffusers, entry.class_name)
    accepted = inspect.signature(kind).parameters
    assert entry.options | set(entry.fixed) <= set(accepted)
    assert not entry.options & set(entry.fixed)
    set_timesteps = inspect.signature(kind.set_timesteps).parameters
    assert entry.takes_timesteps <= ("timesteps" in set_timesteps)
    assert entry.takes_sigmas <= ("sigmas" in set_timesteps)
    assert entry.takes_eta == ("eta" in inspect.signature(kind.step).parameters)
    assert normal_name(entry.label) == normal_name(entry.name) == entry.name


@given(STEPS, SPLITS)
@example(40, 0.8)
@example(50, 0.8)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_base_and_refiner_partition_the_schedule(
    refiner: StableDiffusionXLImg2ImgPipeline, steps: int, split: float
) -> None:
    whole = full_schedule(refiner, steps)
    base_count, refiner_count = split_steps(steps, split)
    refiner.scheduler.set_timesteps(steps)
    kept, count = refiner.get_timesteps(steps, strength=0.3, device="cpu", denoising_start=split)
    assert count == refiner_count
    assert whole[:base_count] + kept.tolist() == whole


@given(st.integers(2, 60), SPLITS)
@example(40, 0.8)
@example(7, 0.5)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_the_pipelines_themselves_take_these_steps(pipeline: LoadedPipeline, steps: int, split: float) -> None:
    expected = split_steps(steps, split)
    if 0 in expected:
        # Refused at the door: diffusers would fail, or run another schedule.
        return
    image = parameters("a", 1, width=64, height=64, num_inference_steps=steps, refiner_split=split)
    seen: list[int] = []

    def first_step(step: stages.Step) -> None:
        seen.append(step.of)
        raise RenderInterrupted("the first step tells how many there are")

    with pytest.raises(RenderInterrupted):
        stages.render_base(pipeline, [image], {}, first_step)
    latents = pipeline.base.unet.conv_in.weight.new_zeros(1, 4, 8, 8)
    with pytest.raises(RenderInterrupted):
        stages.render_refiner(pipeline, [image], {}, latents, first_step)
    assert tuple(seen) == expected
