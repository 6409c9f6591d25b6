"""The farm's parameters as someone would render them who reads diffusers' documentation."""

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from conformance import reference
from conformance.cases import INPUTS
from PIL import Image

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
def expected(models_directory: Path, image: ImageParameters) -> Image.Image:
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
        prompt=image.prompt,
        prompt_2=image.prompt_2,
        negative_prompt=image.negative_prompt,
        negative_prompt_2=image.negative_prompt_2,
        **{name: getattr(image, name) for name in CONDITIONS},
    )
