"""The ways of rendering that gpu.py compares: the documentation's loop and the worker's stages."""

import io
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from parts import Result
from setting import Setting, Work, batches, entry, images, prompts
from timing import DeviceClock, Way, matrix_rate, operations, rates
from transformers.utils import logging as transformers_logging

from worker import stages
from worker.encode import encode
from worker.pipelines import LoadedPipeline, load


def loop_part(work: Work) -> Result:
    """Rates of plain diffusers."""
    begun = time.perf_counter()
    pipelines = loop_pipelines(work.checkpoint, work.setting, work.setting.dtype)
    loaded = time.perf_counter() - begun
    clock = DeviceClock(work.setting)
    return {"seconds to load": loaded, "ways": rates(loop_ways(*pipelines, work.setting, clock), work.setting, clock)}


def engine_part(work: Work) -> Result:
    """Rates of the worker's stages, and what the device could do."""
    loaded, seconds = loaded_engine(work)
    clock = DeviceClock(work.setting)
    return {
        "seconds to load": seconds,
        "ways": rates(engine_ways(loaded, work.setting, clock), work.setting, clock),
        "matrix rate, TFLOP/s": matrix_rate(work.setting),
        "TFLOP per image": operations(work.setting),
    }


def loop_pipelines(checkpoint: Path, setting: Setting, dtype: str) -> tuple[Any, Any]:
    """As https://huggingface.co/docs/diffusers/using-diffusers/sdxl loads them, but for the invisible watermark."""
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    common = {"dtype": getattr(torch, dtype), "use_safetensors": True, "add_watermarker": False}
    base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", **common).to(setting.device)
    refiner = None
    if setting.split is not None:
        refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
            checkpoint / "refiner", text_encoder_2=base.text_encoder_2, vae=base.vae, **common
        ).to(setting.device)
    for pipe in (base, refiner):
        if pipe is not None:
            pipe.set_progress_bar_config(disable=True)
    return base, refiner


def loop_ways(base: Any, refiner: Any, setting: Setting, clock: DeviceClock) -> dict[str, Way]:
    """One prompt after the other, saved or not, and so many at once."""

    def one_by_one(run: str) -> list[list[str]]:
        return [[text] for text in prompts(setting.batch_size, run)]

    def saved(texts: list[str]) -> None:
        with clock.running():
            made = documented(base, refiner, texts, setting, output_type="pil")
        for picture in made:
            picture.save(io.BytesIO(), "PNG")

    def tensors(texts: list[str]) -> None:
        with clock.running():
            documented(base, refiner, texts, setting, output_type="pt")

    return {
        "loop, PNG": Way(one_by_one, saved),
        "loop, tensors": Way(one_by_one, tensors),
        "batched loop, PNG": Way(lambda run: batches(setting, run), saved),
    }


def documented(
    base: Any, refiner: Any, texts: list[str], setting: Setting, *, output_type: str, seed: int | None = None
) -> Any:
    """The documentation's calls for one list of prompts; with a seed, each stage draws from a generator of its own."""

    def common() -> dict[str, Any]:
        drawn = {} if seed is None else {"generator": torch.Generator("cpu").manual_seed(seed)}
        return {"prompt": texts, "num_inference_steps": setting.steps, "guidance_scale": setting.guidance, **drawn}

    size = {"width": setting.size, "height": setting.size}
    if refiner is None:
        return base(**common(), **size, output_type=output_type).images
    latents = base(**common(), **size, denoising_end=setting.split, output_type="latent").images
    return refiner(**common(), denoising_start=setting.split, image=latents, output_type=output_type).images


def loaded_engine(work: Work, changes: dict[str, Any] | None = None) -> tuple[LoadedPipeline, float]:
    """The worker's pipeline, with changes to its catalog entry, and the seconds that it took to load."""
    begun = time.perf_counter()
    loaded = load(entry(work, changes), work.directory, work.setting.torch_device, work.setting.stages)
    if work.setting.device != "cpu":
        torch.cuda.synchronize()
    return loaded, time.perf_counter() - begun


def engine_ways(loaded: LoadedPipeline, setting: Setting, clock: DeviceClock) -> dict[str, Way]:
    """The worker's stages. Where there is a refiner, also each alone: it gets the latents that the base made last."""
    kept: dict[str, Any] = {}

    def calls(run: str) -> list[list[str]]:
        return batches(setting, run)

    def base(texts: list[str]) -> None:
        with clock.running():
            kept["latents"] = stages.render_base(loaded, images(texts, setting), {}, _go_on)

    def refiner(texts: list[str]) -> None:
        with clock.running():
            made = stages.render_refiner(loaded, images(texts, setting), {}, kept["latents"], _go_on)
        _deliver(made, texts, setting)

    def both(texts: list[str]) -> None:
        _deliver(rendered(loaded, texts, setting, clock), texts, setting)

    if setting.split is None:
        return {"engine": Way(calls, both)}
    return {"base stage": Way(calls, base), "refiner stage": Way(calls, refiner), "engine": Way(calls, both)}


def rendered(
    loaded: LoadedPipeline, texts: list[str], setting: Setting, clock: DeviceClock, output_format: str = "png"
) -> list[Any]:
    """Pictures of one call of each stage."""
    parameters = images(texts, setting, output_format)
    with clock.running():
        if setting.split is None:
            return stages.render_base_only(loaded, parameters, {}, _go_on)
        latents = stages.render_base(loaded, parameters, {}, _go_on)
        return stages.render_refiner(loaded, parameters, {}, latents, _go_on)


def _go_on(_step: stages.Step) -> None:
    """Nobody wishes to stop."""


def _deliver(pictures: list[Any], texts: list[str], setting: Setting) -> None:
    """Encode them as the farm does."""
    for picture, parameters in zip(pictures, images(texts, setting), strict=True):
        encode(picture, parameters, {})
