"""The heart: pictures from parameters, as pure functions over a loaded pipeline.

Nothing here knows a queue or a database. The calls are those of diffusers' SDXL documentation, so a batch of one
gives its pictures bit for bit (https://huggingface.co/docs/diffusers/using-diffusers/sdxl): text to image, image to
image, inpainting; the refiner after it as an ensemble of expert denoisers, or as image to image over the base's
finished latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from farm.spec import ImageParameters, SharedParameters
from farm.states import Stage
from worker.decoding import finite
from worker.inputs import Inputs
from worker.options import attention_of
from worker.pictures import Picture, finish
from worker.pipelines import LoadedPipeline
from worker.prompts import prompt_groups
from worker.scheduling import scheduled
from worker.transfers import to_device, to_host
from worker.watermark import set_watermark


@dataclass(frozen=True, slots=True)
class Step:
    """A denoising step that was done."""

    done: int
    of: int
    """All steps of the stage."""
    images: Sequence[ImageParameters]
    """Those that this call denoises: the very objects that the stage was given, some or all of them."""
    latents: torch.Tensor
    """Theirs, (n, 4, height / 8, width / 8) on the device; only to be read."""


OnStep = Callable[[Step], None]
"""Called after each denoising step; may raise to stop."""

#: Parameters that both stages hand to diffusers under their own names, as they are.
_CONDITIONS = (
    "guidance_scale",
    "guidance_rescale",
    "clip_skip",
    "eta",
    "original_size",
    "target_size",
    "crops_coords_top_left",
    "negative_original_size",
    "negative_target_size",
    "negative_crops_coords_top_left",
)


def render_base(
    pipeline: LoadedPipeline, images: Sequence[ImageParameters], inputs: Inputs, on_step: OnStep
) -> torch.Tensor:
    """The base's share of the work: latents (n, 4, height / 8, width / 8), in the pipeline's dtype, on the CPU.

    With a ``refiner_split`` they are still noisy, with a ``refiner_strength`` they are finished.
    """
    _check(images, refined=True)
    latents = _render_base(
        pipeline, images, inputs, on_step, denoising_end=images[0].refiner_split, output_type="latent"
    )
    return to_host(finite(latents))


def render_base_only(
    pipeline: LoadedPipeline, images: Sequence[ImageParameters], inputs: Inputs, on_step: OnStep
) -> list[Picture]:
    """The whole schedule by the base, to pictures."""
    _check(images, refined=False)
    if images[0].padding_mask_crop is not None:
        # diffusers pastes the crop back into the picture, which only its PIL output does.
        pasted: list[Picture] = _render_base(pipeline, images, inputs, on_step, output_type="pil")
        return pasted
    return _pictures(pipeline, _render_base(pipeline, images, inputs, on_step, output_type="latent"), images[0])


def render_refiner(
    pipeline: LoadedPipeline,
    images: Sequence[ImageParameters],
    inputs: Inputs,
    latents: torch.Tensor,
    on_step: OnStep,
) -> list[Picture]:
    """The refiner's share of the work, from the base's latents (n, 4, height / 8, width / 8) to pictures."""
    shared = _check(images, refined=True)
    expected = (len(images), 4, shared.height // 8, shared.width // 8)
    if tuple(latents.shape) != expected:
        raise ValueError(f"latents of shape {tuple(latents.shape)} for images that need {expected}")
    noisy = finite(latents)
    _adapt(pipeline, Stage.REFINER, shared)
    pipe = _mended(pipeline.mode(Stage.REFINER, "inpaint" if shared.mode == "inpaint" else "image"))
    ended = _calls(
        pipeline,
        Stage.REFINER,
        pipe,
        images,
        lambda group, prompts: {
            **prompts,
            **_refiner_arguments([images[number] for number in group], inputs, on_step),
            "image": to_device(noisy[group], pipeline.device),
            "output_type": "latent",
        },
    )
    return _pictures(pipeline, ended, shared)


def _pictures(pipeline: LoadedPipeline, latents: torch.Tensor, shared: SharedParameters) -> list[Picture]:
    """Finished latents as they are delivered."""
    if shared.output_format == "latents":
        return list(to_host(finite(latents).float()))
    return finish(pipeline.decoder.decoded(latents, shared), shared.output_format)


def _calls(
    pipeline: LoadedPipeline,
    stage: Stage,
    pipe: Any,
    images: Sequence[ImageParameters],
    arguments: Callable[[list[int], dict[str, Any]], dict[str, Any]],
) -> Any:
    """What a stage's diffusers pipeline makes of the images: a tensor (n, ...) or a list, in their order.

    One call for all whose prompts can share one; ``arguments`` is given their numbers and their prompts' embeddings.
    """
    shared = images[0]
    set_watermark(pipe, shared)
    groups = prompt_groups(pipe, images, pipeline.prompts[stage])
    made = []
    for group, embeds in groups:
        with scheduled(pipe, shared), attention_of(pipeline.entry):
            made.append(pipe(**arguments(group, embeds)).images)
    if len(groups) == 1:
        return made[0]
    numbers = [number for group, _ in groups for number in group]
    order = sorted(range(len(images)), key=numbers.__getitem__)
    if isinstance(made[0], torch.Tensor):
        return torch.cat(made)[order]
    pictures = [picture for part in made for picture in part]
    return [pictures[place] for place in order]


def _refiner_arguments(images: Sequence[ImageParameters], inputs: Inputs, on_step: OnStep) -> dict[str, Any]:
    shared = images[0]
    arguments = _common(images, on_step) | _aesthetics(shared)
    if shared.refiner_split is not None:
        arguments |= _steps(shared) | {"denoising_start": shared.refiner_split}
    else:
        arguments |= {"num_inference_steps": shared.refiner_steps, "strength": shared.refiner_strength}
    if shared.mode == "inpaint":
        arguments |= _masks(images, inputs) | _size(shared)
    return arguments


def _render_base(
    pipeline: LoadedPipeline, images: Sequence[ImageParameters], inputs: Inputs, on_step: OnStep, **more: Any
) -> Any:
    """The base's calls, in its mode."""
    shared = images[0]
    _adapt(pipeline, Stage.BASE, shared)
    pipe = _mended(
        pipeline.controlled(shared.mode, shared.controlnet)
        if shared.controlnet
        else pipeline.mode(Stage.BASE, shared.mode)
    )

    def arguments(group: list[int], prompts: dict[str, Any]) -> dict[str, Any]:
        chosen = [images[number] for number in group]
        given = _base_arguments(pipe, chosen, inputs, on_step)
        followed = [inputs[image.ip_adapter_image] for image in chosen if image.ip_adapter_image]
        if followed:
            guided = shared.guidance_scale > 1
            given["ip_adapter_image_embeds"] = pipeline.adapters[Stage.BASE].image_embeds(followed, guided=guided)
        return {**prompts, **given, **more}

    return _calls(pipeline, Stage.BASE, pipe, images, arguments)


def _base_arguments(pipe: Any, images: Sequence[ImageParameters], inputs: Inputs, on_step: OnStep) -> dict[str, Any]:
    shared = images[0]
    control = _control(pipe, images, inputs)
    arguments = _common(images, on_step) | _steps(shared) | control
    if shared.mode != "text":
        arguments |= _aesthetics(shared) | {"strength": shared.strength}
    if shared.mode == "image":
        # Without ControlNet this pipeline takes its size from the pictures.
        arguments["image"] = [
            pipe.image_processor.resize(inputs[image.image or ""], shared.height, shared.width) for image in images
        ]
    if shared.mode != "image" or control:
        arguments |= _size(shared)
    if shared.mode == "inpaint":
        arguments |= _masks(images, inputs) | {"image": [inputs[image.image or ""] for image in images]}
        if shared.padding_mask_crop is not None:
            # Single pictures, not lists: diffusers crops around the mask of one.
            (arguments["image"],), (arguments["mask_image"],) = arguments["image"], arguments["mask_image"]
            arguments["padding_mask_crop"] = shared.padding_mask_crop
    return arguments


def _adapt(pipeline: LoadedPipeline, stage: Stage, shared: ImageParameters) -> None:
    """Put the adapters that the images ask for on the stage's modules, and no others.

    LoRAs and IP-Adapters are made for the base's architecture; the words of textual inversions are the refiner's too.
    """
    catalog, adapters = pipeline.catalog, pipeline.adapters.get(stage)
    if adapters is None:
        raise ValueError(f"pipeline {pipeline.entry.name} was loaded without its {stage.value}")
    base = stage is Stage.BASE
    adapters.use_loras([(catalog.loras.get(lora.name), lora.weight) for lora in shared.loras] if base else [])
    # Where one device holds both stages they share the second encoder and its tokenizer, and so the words.
    holder = pipeline.adapters.get(Stage.BASE, adapters)
    holder.use_textual_inversions([catalog.textual_inversions.get(name) for name in shared.textual_inversions])
    if base:
        adapter = catalog.ip_adapters.get(shared.ip_adapter) if shared.ip_adapter else None
        adapters.use_ip_adapter(adapter, shared.ip_adapter_scale)
    adapters.choose_projections()


def _control(pipe: Any, images: Sequence[ImageParameters], inputs: Inputs) -> dict[str, Any]:
    """What a ControlNet pipeline's call is given; empty without ControlNet."""
    shared = images[0]
    if not shared.controlnet:
        return {}
    shown = [[inputs[image.control_image[net]] for image in images] for net in range(len(shared.controlnet))]
    several = len(shown) > 1
    # For several nets diffusers takes no lists of pictures, but a tensor for each, made as it makes them itself.
    processor = pipe.control_image_processor
    tensors = [
        torch.cat([processor.preprocess(picture, shared.height, shared.width) for picture in of_net])
        for of_net in shown
    ]

    def value(numbers: Sequence[float]) -> Any:
        return list(numbers) if several else numbers[0]

    return {
        ("image" if shared.mode == "text" else "control_image"): tensors if several else tensors[0],
        "controlnet_conditioning_scale": value(shared.controlnet_conditioning_scale),
        "control_guidance_start": value(shared.control_guidance_start),
        "control_guidance_end": value(shared.control_guidance_end),
    }


def _check(images: Sequence[ImageParameters], *, refined: bool) -> ImageParameters:
    """The first of images that share a batch.

    Raises ValueError for images that do not, and for a stage that does not fit: without a split diffusers would
    quietly run another schedule.
    """
    if not images:
        raise ValueError("no images to render")
    if images[0].refined != refined:
        raise ValueError(f"images that are {'not ' * refined}for the refiner do not fit this stage")
    key = images[0].sharing_key()
    if any(image.sharing_key() != key for image in images) or (images[0].alone and len(images) > 1):
        raise ValueError("these images cannot share a batch: their parameters differ")
    return images[0]


def _common(images: Sequence[ImageParameters], on_step: OnStep) -> dict[str, Any]:
    """What every pipeline's call is given, beside its prompts."""
    shared = images[0]

    def callback(pipe: Any, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(Step(step + 1, pipe.num_timesteps, images, tensors["latents"]))
        return tensors

    return {
        **{name: getattr(shared, name) for name in _CONDITIONS if name != "guidance_rescale" or not shared.controlnet},
        # One generator per image, on the CPU, seeded anew in each stage: a picture depends neither on the device's
        # generator nor on its neighbours in the batch.
        "generator": [torch.Generator("cpu").manual_seed(image.seed) for image in images],
        "callback_on_step_end": callback,
    }


def _steps(shared: ImageParameters) -> dict[str, Any]:
    """The schedule that base and refiner share."""
    if shared.timesteps is not None:
        return {"timesteps": list(shared.timesteps)}
    if shared.sigmas is not None:
        return {"sigmas": list(shared.sigmas)}
    return {"num_inference_steps": shared.num_inference_steps}


def _size(shared: ImageParameters) -> dict[str, int]:
    return {"width": shared.width, "height": shared.height}


def _masks(images: Sequence[ImageParameters], inputs: Inputs) -> dict[str, Any]:
    return {"mask_image": [inputs[image.mask_image or ""] for image in images]}


def _aesthetics(shared: ImageParameters) -> dict[str, float]:
    """What all pipelines but text to image take; only a UNet that was trained with scores, the refiner's, heeds it."""
    return {
        "aesthetic_score": shared.aesthetic_score,
        "negative_aesthetic_score": shared.negative_aesthetic_score,
    }


def _mended(pipe: Any) -> Any:
    """The pipeline, with its VAE back in the dtype it was loaded in.

    diffusers casts a float16 VAE to float32 for each picture that it encodes. When that fails (out of memory) the VAE
    stays in float32, and every later call would fail over the mixture.
    """
    if pipe.vae.dtype != pipe.unet.dtype:
        pipe.vae.to(pipe.unet.dtype)
    return pipe
