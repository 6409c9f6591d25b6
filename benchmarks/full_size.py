"""SDXL at its real size, without a download: the real configurations, random weights, the tiny checkpoint's tokenizers.

How long a picture takes does not depend on the weights' values, nor on which tokens stand for a prompt.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

#: unet/config.json of stabilityai/stable-diffusion-xl-base-1.0, what differs from diffusers' defaults.
BASE_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
#: The same of stabilityai/stable-diffusion-xl-refiner-1.0.
REFINER_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "attention_head_dim": (6, 12, 24, 24),
    "cross_attention_dim": 1280,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2560,
}
#: vae/config.json of both.
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
#: text_encoder/config.json, CLIP ViT-L, and text_encoder_2/config.json, OpenCLIP ViT-bigG.
TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "vocab_size": 49408,
}
TEXT_2: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "vocab_size": 49408,
}


def write_checkpoint(directory: Path, tiny: Path, device: str, dtype: torch.dtype) -> None:
    """Write ``directory/base`` and ``directory/refiner`` in diffusers' layout, 14 GB in half precision.

    ``tiny`` is the tiny checkpoint, whose tokenizers and scheduler are taken. Weights are made on the device.
    """
    scheduler = EulerDiscreteScheduler.from_pretrained(tiny / "base", subfolder="scheduler")
    tokenizers = [CLIPTokenizer.from_pretrained(tiny / "base", subfolder=name) for name in ("tokenizer", "tokenizer_2")]
    ends = {"bos_token_id": tokenizers[0].bos_token_id, "eos_token_id": tokenizers[0].eos_token_id}
    with torch.device(device):
        torch.manual_seed(0)
        vae = AutoencoderKL(**VAE).to(dtype)
        text_encoder = CLIPTextModel(CLIPTextConfig(**TEXT, **ends)).to(dtype)
        text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2, **ends)).to(dtype)
        base_unet = UNet2DConditionModel(**BASE_UNET).to(dtype)
    shared = {"vae": vae, "text_encoder_2": text_encoder_2, "tokenizer_2": tokenizers[1], "scheduler": scheduler}
    StableDiffusionXLPipeline(
        unet=base_unet, text_encoder=text_encoder, tokenizer=tokenizers[0], **shared
    ).save_pretrained(directory / "base")
    del base_unet
    with torch.device(device):
        refiner_unet = UNet2DConditionModel(**REFINER_UNET).to(dtype)
    StableDiffusionXLImg2ImgPipeline(
        unet=refiner_unet,
        text_encoder=None,
        tokenizer=None,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        **shared,
    ).save_pretrained(directory / "refiner")


def tera_flop(config: dict[str, Any], size: int) -> float:
    """10^12 floating-point operations of one forward of a UNet, for one image of ``size`` pixels along its edge.

    Counted on the meta device: nothing is computed, and no memory is taken.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
        edge, width = size // 8, config["cross_attention_dim"]
        # What is not the embedded conditions is the pooled embedding of bigG.
        conditions = (config["projection_class_embeddings_input_dim"] - TEXT_2["projection_dim"]) // 256
        added = {"text_embeds": torch.empty(1, TEXT_2["projection_dim"]), "time_ids": torch.empty(1, conditions)}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(torch.empty(1, 4, edge, edge), torch.empty(1), torch.empty(1, 77, width), added_cond_kwargs=added)
    return float(counter.get_total_flops()) / 1e12


def tera_flop_of_decoding(size: int) -> float:
    """The same of the VAE's decoder."""
    with torch.device("meta"):
        vae = AutoencoderKL(**VAE)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            vae.decode(torch.empty(1, 4, size // 8, size // 8))
    return float(counter.get_total_flops()) / 1e12
