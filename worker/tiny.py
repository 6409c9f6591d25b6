"""Tiny checkpoints of the real SDXL architecture: random weights, real layout, a few megabytes.

Everything but the size is as in SDXL: the base UNet is conditioned on text and micro-conditions and reads two text
encoders, the refiner's on the aesthetic score and reads the second encoder only, the VAE shrinks by 8, the
tokenizers are CLIP's. They load through the very code that loads the real ones.

Plain random weights would paint grey noise that hardly depends on the prompt. A few are therefore set or scaled (see
``_listen``, ``_blur``, ``_colour`` and ``_calm``), so that the pictures are soft coloured shapes, different for every
prompt and seed, and so that rounding is not amplified from step to step.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from farm.schedule import STEPS_OFFSET, TRAIN_TIMESTEPS

Model = TypeVar("Model", bound=nn.Module)

TEXT_DIM = 32
TEXT_2_DIM = 64
TIME_DIM = 32
#: SDXL's base takes six micro-conditions (original size, crop, target size), its refiner five (size, crop, score).
BASE_CONDITIONS = 6
REFINER_CONDITIONS = 5

#: Factors on freshly initialised weights, found by looking at the pictures. Larger ones make prompts differ more,
#: but also bring single and batched renders further apart (one 8-bit level at most is allowed).
TEXT_GAIN = 2.0
QUERY_KEY_GAIN = 3.0
CROSS_ATTENTION_GAIN = 4.0
CONDITION_GAIN = 4.0
CONTRAST = 2.4
#: How much of what red, green and blue have in common is taken away.
COLOUR = 0.7

#: Words that get tokens of their own; any other text falls back to bytes, as in CLIP.
WORDS = (
    "a",
    "an",
    "the",
    "of",
    "in",
    "on",
    "at",
    "with",
    "and",
    "by",
    "to",
    "from",
    "red",
    "green",
    "blue",
    "yellow",
    "black",
    "white",
    "orange",
    "purple",
    "golden",
    "cat",
    "dog",
    "fox",
    "owl",
    "bird",
    "fish",
    "horse",
    "tree",
    "forest",
    "mountain",
    "river",
    "sea",
    "sky",
    "sun",
    "moon",
    "star",
    "city",
    "street",
    "house",
    "castle",
    "bridge",
    "robot",
    "dragon",
    "portrait",
    "photo",
    "painting",
    "watercolor",
    "sketch",
    "drawing",
    "oil",
    "light",
    "night",
    "day",
    "snow",
    "rain",
    "fire",
    "water",
    "glass",
    "wood",
    "stone",
    "small",
    "large",
    "old",
    "young",
    "high",
    "detailed",
    "beautiful",
    "style",
)


def write_tiny_checkpoint(directory: Path, seed: int = 0) -> None:
    """Write ``directory/base`` and ``directory/refiner``; the same seed gives the same bytes.

    The directory appears complete or not at all; one that is there already is left as it is. Raises OSError when
    it cannot be written.
    """
    if (directory / "refiner").is_dir():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}-"))
    try:
        temporary.chmod(0o755)
        _write(temporary, seed)
        try:
            temporary.rename(directory)
        except OSError:
            # A concurrent writer was first, with the same bytes.
            if not (directory / "refiner").is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(directory: Path, seed: int) -> None:
    tokenizer, tokenizer_2 = tokenizers(WORDS)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        text_encoder = _listen(CLIPTextModel(text_config(TEXT_DIM, "quick_gelu", tokenizer)))
        # As in SDXL, base and refiner have this encoder and the VAE in common, so that one device can share them.
        text_encoder_2 = _listen(CLIPTextModelWithProjection(text_config(TEXT_2_DIM, "gelu", tokenizer_2)))
        vae = _vae()
        _blur(vae.decoder)
        _colour(vae.decoder.conv_out)
        base_unet = _calm(_base_unet())
        refiner_unet = _calm(_refiner_unet())
    save_pipelines(directory, (tokenizer, tokenizer_2), (text_encoder, text_encoder_2), vae, (base_unet, refiner_unet))


def save_pipelines(
    directory: Path,
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    vae: AutoencoderKL,
    unets: tuple[UNet2DConditionModel, UNet2DConditionModel],
    prediction_type: str = "epsilon",
) -> None:
    """Write ``directory/base`` and ``directory/refiner`` as diffusers lays them out, in the models' dtype.

    Both have the second text encoder and the VAE. The scheduler is SDXL's; ``prediction_type`` says what the UNets
    were taught to tell.
    """
    (tokenizer, tokenizer_2), (text_encoder, text_encoder_2), (base, refiner) = tokenizers, text_encoders, unets
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=TRAIN_TIMESTEPS,
        prediction_type=prediction_type,
        timestep_spacing="leading",
        steps_offset=STEPS_OFFSET,
    )
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=base,
        scheduler=scheduler,
    ).save_pretrained(directory / "base", safe_serialization=True)
    StableDiffusionXLImg2ImgPipeline(
        vae=vae,
        text_encoder=None,
        text_encoder_2=text_encoder_2,
        tokenizer=None,
        tokenizer_2=tokenizer_2,
        unet=refiner,
        scheduler=scheduler,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    ).save_pretrained(directory / "refiner", safe_serialization=True)


def tokenizers(words: Sequence[str]) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """CLIP's tokenizers, with tokens for these words; SDXL pads the first with the end token, the second with "!"."""
    tokens, merges = _byte_pair_vocabulary(words)
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return tuple(
        CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), pad_token=pad_token, model_max_length=77)
        for pad_token in ("<|endoftext|>", "!")
    )


def _byte_pair_vocabulary(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens and merges of a byte-level BPE: every byte, inside and at the end of a word, and these words."""
    symbols = _byte_symbols()
    tokens = dict.fromkeys([*symbols, *(f"{symbol}</w>" for symbol in symbols)])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        left = parts[0]
        for right in parts[1:]:
            merges[left, right] = None
            left += right
            tokens[left] = None
    return list(tokens), list(merges)


def _byte_symbols() -> list[str]:
    """A printable character for each of the 256 bytes, as byte-level BPE defines them (GPT-2, Radford et al. 2019).

    Printable bytes stand for themselves, the others for the characters from U+0100 on. "!" comes first.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]


def text_config(hidden_size: int, activation: str, tokenizer: CLIPTokenizer, layers: int = 3) -> CLIPTextConfig:
    """A CLIP text encoder of so many layers, so wide."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        projection_dim=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae() -> AutoencoderKL:
    """Four levels, so three halvings: the real factor 8."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=256,
        scaling_factor=0.13025,
    )


def _base_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 4),
        cross_attention_dim=TEXT_DIM + TEXT_2_DIM,
        **unet_options(BASE_CONDITIONS, TEXT_2_DIM),
    )


def _refiner_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 1, 1),
        attention_head_dim=(2, 4, 4, 4),
        cross_attention_dim=TEXT_2_DIM,
        **unet_options(REFINER_CONDITIONS, TEXT_2_DIM),
    )


def unet_options(conditions: int, text_2_dim: int) -> dict[str, object]:
    """What makes a UNet SDXL's: so many micro-conditions, and what the second text encoder pools, of that width."""
    return {
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_DIM,
        "projection_class_embeddings_input_dim": conditions * TIME_DIM + text_2_dim,
    }


def _listen(text_encoder: Model) -> Model:
    """Let the encoding of a text depend on its words more than on its length, as a trained encoder's does."""
    for name, module in text_encoder.named_modules():
        if isinstance(module, nn.Linear) or name.endswith("token_embedding"):
            module.weight.mul_(TEXT_GAIN)
    return text_encoder


def _blur(module: nn.Module) -> None:
    """Give every 3x3 convolution a binomial kernel, scaled by its random centre: shapes instead of grain."""
    row = torch.tensor([0.25, 0.5, 0.25])
    kernel = row[:, None] * row
    for convolution in module.modules():
        if isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (3, 3):
            # Nine independent weights add up to three times one of them; a product is exact on every CPU, a sum
            # depends on its order.
            convolution.weight.copy_(3 * convolution.weight[:, :, 1:2, 1:2] * kernel)


def _colour(convolution: nn.Conv2d) -> None:
    """Let red, green and blue go their own ways: what they have in common would only be brightness."""
    red, green, blue = convolution.weight
    convolution.weight.sub_(COLOUR * (red + green + blue) / 3).mul_(CONTRAST)


def _calm(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Make a random UNet predict mainly the noise that it is given, and soft shapes that depend on the text.

    Its latents then lose their noise from step to step, and what the deeper blocks made of text and seed remains.
    """
    _blur(unet)
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            module.weight.mul_(QUERY_KEY_GAIN)
        elif name.endswith("attn2.to_out.0"):
            module.weight.mul_(CROSS_ATTENTION_GAIN)
    unet.add_embedding.linear_2.weight.mul_(CONDITION_GAIN)

    # The way of the noise: the input and its negative enter as eight channels, cross the outermost skip connection,
    # and meet again in the output, where silu(x) - silu(-x) = x undoes the activation between.
    latent = unet.config.in_channels
    both = 2 * latent
    identity = torch.eye(latent)
    unet.conv_in.weight[:both] = 0
    unet.conv_in.bias[:both] = 0
    unet.conv_in.weight[:both, :, 1, 1] = torch.cat([identity, -identity])
    shortcut = unet.up_blocks[-1].resnets[-1].conv_shortcut.weight
    skipped = shortcut.shape[1] - unet.config.block_out_channels[0]
    shortcut[:, skipped:] = 0
    shortcut[:both, skipped : skipped + both, 0, 0] = torch.eye(both)
    unet.conv_out.weight.zero_()
    unet.conv_out.bias.zero_()
    unet.conv_out.weight[:, :both, 1, 1] = torch.cat([identity, -identity], dim=1)
    return unet
