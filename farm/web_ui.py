"""What the web UIs for Stable Diffusion read in a picture: its parameters as text."""

from farm.spec import ImageParameters


def web_ui_text(parameters: ImageParameters) -> str:
    """The parameters in the widely read form of the web UIs; what they have no name for is left out."""
    lines = [parameters.prompt + "".join(f" <lora:{lora.name}:{lora.weight:g}>" for lora in parameters.loras)]
    if parameters.negative_prompt is not None:
        lines.append(f"Negative prompt: {parameters.negative_prompt}")
    settings: dict[str, object] = {
        "Steps": parameters.num_inference_steps,
        "Sampler": parameters.scheduler_entry.label,
        "CFG scale": parameters.guidance_scale,
        "Seed": parameters.seed,
        "Size": f"{parameters.width}x{parameters.height}",
        "Model": parameters.pipeline,
        "Denoising strength": parameters.strength,
        # The web UIs count from 1 where diffusers counts the layers that are left out.
        "Clip skip": None if parameters.clip_skip is None else parameters.clip_skip + 1,
        "Eta": parameters.eta or None,
        "Refiner switch at": parameters.refiner_split,
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None))
    return "\n".join(lines)
