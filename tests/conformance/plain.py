"""The farm's parameters as someone would render them who reads diffusers' documentation."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from conformance import reference
from conformance.cases import INPUTS
from safetensors.torch import load_file

from farm.spec import ImageParameters

#: As in the table of https://huggingface.co/docs/diffusers/api/schedulers/overview.
IN_DIFFUSERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "dpmpp_2m_sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2m_sde_karras": (
        diffusers.DPMSolverMultistepScheduler,
        {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"},
    ),
    "dpmpp_sde": (diffusers.DPMSolverSDEScheduler, {}),
    "dpmpp_sde_karras": (diffusers.DPMSolverSDEScheduler, {"use_karras_sigmas": True}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "dpm2": (diffusers.KDPM2DiscreteScheduler, {}),
    "dpm2_karras": (diffusers.KDPM2DiscreteScheduler, {"use_karras_sigmas": True}),
    "dpm2_a": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "lms": (diffusers.LMSDiscreteScheduler, {}),
    "lms_karras": (diffusers.LMSDiscreteScheduler, {"use_karras_sigmas": True}),
    "ddim": (diffusers.DDIMScheduler, {}),
    "ddpm": (diffusers.DDPMScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "deis": (diffusers.DEISMultistepScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "lcm": (diffusers.LCMScheduler, {}),
    "tcd": (diffusers.TCDScheduler, {}),
}
CONDITIONS = (
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


@cache
def expected(models_directory: Path, image: ImageParameters, output_type: str = "pil") -> Any:
    """The picture as someone would render it who reads diffusers' documentation."""
    if image.timesteps is not None:
        schedule: dict[str, Any] = {"timesteps": list(image.timesteps)}
    elif image.sigmas is not None:
        schedule = {"sigmas": list(image.sigmas)}
    else:
        schedule = {"num_inference_steps": image.num_inference_steps}
    scheduler = None
    if image.scheduler is not None or image.scheduler_options.given():
        kind, fixed = IN_DIFFUSERS[image.scheduler or "euler"]
        options = {**fixed, **image.scheduler_options.given()}
        if kind is diffusers.DPMSolverSDEScheduler:
            options["noise_sampler_seed"] = image.seed

        def scheduler(config: Any) -> Any:
            return kind.from_config(config, **options)

    return reference.render(
        models_directory / "tiny",
        seed=image.seed,
        width=image.width,
        height=image.height,
        image=INPUTS[image.image] if image.image else None,
        mask_image=INPUTS[image.mask_image] if image.mask_image else None,
        strength=image.strength,
        padding_mask_crop=image.padding_mask_crop,
        split=image.refiner_split,
        refiner_strength=image.refiner_strength,
        refiner_steps=image.refiner_steps,
        schedule=schedule,
        scores={
            "aesthetic_score": image.aesthetic_score,
            "negative_aesthetic_score": image.negative_aesthetic_score,
        },
        scheduler=scheduler,
        watermark=image.watermark,
        output_type=output_type,
        prompt=image.prompt,
        prompt_2=image.prompt_2,
        negative_prompt=image.negative_prompt,
        negative_prompt_2=image.negative_prompt_2,
        **_adapted(models_directory / "tiny-adapters", image),
        **{name: getattr(image, name) for name in CONDITIONS if not (image.controlnet and name == "guidance_rescale")},
    )


def _adapted(adapters: Path, image: ImageParameters) -> dict[str, Any]:
    """LoRAs, textual inversions, ControlNets and the IP-Adapter that the image asks for."""
    more: dict[str, Any] = {}
    if image.loras or image.textual_inversions or image.ip_adapter:
        loras = tuple((lora.name, lora.weight) for lora in image.loras)
        ip_adapter = (image.ip_adapter, image.ip_adapter_scale)
        more["adapt_base"] = _adaptation(adapters, image.textual_inversions, loras, ip_adapter)
    if image.textual_inversions:
        more["adapt_refiner"] = _adaptation(adapters, image.textual_inversions)
    if image.ip_adapter_image is not None:
        more["of_base"] = {"ip_adapter_image": INPUTS[image.ip_adapter_image]}
    if image.controlnet:
        more["controlnet"] = tuple(_controlnet(adapters / name) for name in image.controlnet)
        shown = [INPUTS[ref] for ref in image.control_image]

        def one_or_all(values: Sequence[Any]) -> Any:
            return values[0] if len(image.controlnet) == 1 else list(values)

        more["control"] = {
            "image" if image.mode == "text" else "control_image": one_or_all(shown),
            "controlnet_conditioning_scale": one_or_all(image.controlnet_conditioning_scale),
            "control_guidance_start": one_or_all(image.control_guidance_start),
            "control_guidance_end": one_or_all(image.control_guidance_end),
        }
    return more


@cache
def _adaptation(
    adapters: Path,
    textual_inversions: tuple[str, ...],
    loras: tuple[tuple[str, float], ...] = (),
    ip_adapter: tuple[str | None, float | None] = (None, None),
) -> Callable[[Any], None]:
    """What puts these adapters on a pipeline; one and the same for the same adapters."""

    def adapt(pipe: Any) -> None:
        for name in textual_inversions:
            vectors = load_file(adapters / f"{name}.safetensors")
            if pipe.text_encoder is not None:
                pipe.load_textual_inversion(
                    vectors["clip_l"], token="<glyph>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer
                )
            pipe.load_textual_inversion(
                vectors["clip_g"], token="<glyph>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2
            )
        for name, _ in loras:
            pipe.load_lora_weights(adapters, weight_name=f"{name}.safetensors", adapter_name=name)
        if loras:
            pipe.set_adapters([name for name, _ in loras], [weight for _, weight in loras])
        name, scale = ip_adapter
        if name is not None:
            pipe.load_ip_adapter(adapters / name, subfolder="", weight_name="ip-adapter_sdxl.safetensors")
            pipe.set_ip_adapter_scale(scale)

    return adapt


@cache
def _controlnet(path: Path) -> Any:
    return diffusers.ControlNetModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
