"""Tiny LoRAs, a textual inversion, ControlNets and an IP-Adapter for the tiny checkpoint: random weights, real layouts.

Each changes pictures visibly, and is read by the code of diffusers that reads the real ones.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from worker.tiny import TEXT_2_DIM, TEXT_DIM

LORA_RANK = 4
#: Strengths of the random weights, found by looking at the pictures.
LORA_GAIN = 0.15
CONTROL_GAIN = 0.05
IMAGE_TOKENS = 4
IMAGE_DIM = 32


def write_tiny_adapters(directory: Path, checkpoint: Path) -> None:
    """Write the adapters for the tiny checkpoint to ``directory``, unless they are there; atomically."""
    if directory.exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".tiny-adapters-"))
    try:
        base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", dtype=torch.float32, use_safetensors=True)
        for number, name in enumerate(("tiny-warm", "tiny-cool")):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(100 + number)
                _write_lora(temporary, name, checkpoint)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(200)
            vectors = {"clip_l": torch.randn(1, TEXT_DIM), "clip_g": torch.randn(1, TEXT_2_DIM)}
            save_file(vectors, temporary / "tiny-glyph.safetensors")
        for number, name in enumerate(("tiny-edges", "tiny-depth")):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(300 + number)
                _controlnet(base.unet).save_pretrained(temporary / name, safe_serialization=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(400)
            _write_ip_adapter(temporary / "tiny-look", base.unet)
        temporary.chmod(0o755)
        try:
            temporary.replace(directory)
        except OSError:
            # Another worker was first; what it wrote is the same.
            if not directory.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_lora(directory: Path, name: str, checkpoint: Path) -> None:
    base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", dtype=torch.float32, use_safetensors=True)
    layers: dict[str, Any] = {}
    for part, targets in (
        ("unet", ["to_q", "to_k", "to_v", "to_out.0"]),
        ("text_encoder", ["q_proj", "v_proj"]),
        ("text_encoder_2", ["q_proj", "v_proj"]),
    ):
        module = getattr(base, part)
        module.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=targets))
        for key, weight in module.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(weight, std=LORA_GAIN)
        layers[f"{part}_lora_layers"] = get_peft_model_state_dict(module)
    StableDiffusionXLPipeline.save_lora_weights(
        directory, **layers, weight_name=f"{name}.safetensors", safe_serialization=True
    )


def _controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    zero = [*net.controlnet_down_blocks.parameters(), *net.controlnet_mid_block.parameters()]
    zero += net.controlnet_cond_embedding.conv_out.parameters()
    # Training begins with zeros here, which would do nothing.
    for weight in zero:
        torch.nn.init.normal_(weight, std=CONTROL_GAIN)
    return net


def _write_ip_adapter(directory: Path, unet: UNet2DConditionModel) -> None:
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=IMAGE_DIM,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(directory / "image_encoder", safe_serialization=True)
    text_dim = TEXT_DIM + TEXT_2_DIM
    weights = {
        "image_proj.proj.weight": torch.randn(IMAGE_TOKENS * text_dim, IMAGE_DIM) * 0.5,
        "image_proj.proj.bias": torch.randn(IMAGE_TOKENS * text_dim) * 0.1,
        "image_proj.norm.weight": torch.ones(text_dim),
        "image_proj.norm.bias": torch.zeros(text_dim),
    }
    # Numbered as the published ones are: every attention counts, and the second of each pair reads the text.
    number = 1
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            for key in ("to_k", "to_v"):
                inner = getattr(module, key).weight.shape[0]
                weights[f"ip_adapter.{number}.{key}_ip.weight"] = torch.randn(inner, text_dim) * 0.3
            number += 2
    save_file(weights, directory / "ip-adapter_sdxl.safetensors")
