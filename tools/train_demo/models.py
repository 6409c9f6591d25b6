"""What is trained: SDXL's parts, each as small as it may be, all together at most six million parameters."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tools.train_demo.captions import vocabulary
from worker.tiny import BASE_CONDITIONS, REFINER_CONDITIONS, text_config, tokenizers, unet_options

SIDE = 256
#: Pixels to a latent pixel, as in SDXL.
FACTOR = 8
#: The UNets tell the velocity rather than the noise: where all is noise, colours would else be small differences.
PREDICTION = "v_prediction"
#: Latents are sampled about so far from their mean at first, as a logarithm of the variance: with much noise in them
#: nothing could be learnt from them.
FIRST_DEVIATION = -5.0
TEXT_DIM, TEXT_2_DIM = 64, 64
TEXT_LAYERS = 4
#: Groups of channels that are normalized together. Of an even colour each leaves but the ratios of its channels, so
#: there must be many in each: eight in the smallest layers.
VAE_GROUPS, UNET_GROUPS = 2, 4
#: No prompt of this world is longer in tokens; texts are padded to CLIP's 77 all the same, as pipelines do.
TEXT_LENGTH = 77


@dataclass(frozen=True)
class Text:
    """Both encoders with their tokenizers."""

    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer
    encoder: CLIPTextModel
    encoder_2: CLIPTextModelWithProjection

    def tokens(self, texts: list[str]) -> torch.Tensor:
        """Ids for both encoders, int64 (2, texts, 77)."""
        both = [
            one(texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt").input_ids
            for one in (self.tokenizer, self.tokenizer_2)
        ]
        return torch.stack(both)

    def encode(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As the pipelines do: the last hidden states but one of both, side by side, and what the second pools."""
        first = self.encoder(tokens[0], output_hidden_states=True).hidden_states[-2]
        second = self.encoder_2(tokens[1], output_hidden_states=True)
        return torch.cat([first, second.hidden_states[-2]], dim=-1), second.text_embeds

    def encode_2(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for the refiner, which has the second encoder only."""
        second = self.encoder_2(tokens[1], output_hidden_states=True)
        return second.hidden_states[-2], second.text_embeds


def make_text() -> Text:
    """Both text encoders, new."""
    tokenizer, tokenizer_2 = tokenizers(vocabulary())
    return Text(
        tokenizer,
        tokenizer_2,
        CLIPTextModel(text_config(TEXT_DIM, "quick_gelu", tokenizer, TEXT_LAYERS)),
        CLIPTextModelWithProjection(text_config(TEXT_2_DIM, "gelu", tokenizer_2, TEXT_LAYERS)),
    )


def make_vae() -> AutoencoderKL:
    """The VAE, new: four levels, so three halvings."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 48, 48),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=VAE_GROUPS,
        sample_size=SIDE,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.latent_channels :] = FIRST_DEVIATION
    return vae


def make_base() -> UNet2DConditionModel:
    """The base UNet, new."""
    return UNet2DConditionModel(
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 1),
        attention_head_dim=(2, 4, 4),
        cross_attention_dim=TEXT_DIM + TEXT_2_DIM,
        **unet_options(BASE_CONDITIONS, TEXT_2_DIM) | {"norm_num_groups": UNET_GROUPS},
    )


def make_refiner() -> UNet2DConditionModel:
    """The refiner's UNet, new."""
    return UNet2DConditionModel(
        block_out_channels=(32, 48, 48, 40),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 1, 1),
        attention_head_dim=(2, 3, 3, 2),
        cross_attention_dim=TEXT_2_DIM,
        **unet_options(REFINER_CONDITIONS, TEXT_2_DIM) | {"norm_num_groups": UNET_GROUPS},
    )


def read(
    directory: Path, text: Text, vae: AutoencoderKL, base: UNet2DConditionModel, refiner: UNet2DConditionModel
) -> None:
    """Give these parts the weights of the pipelines packed in ``directory``, for their training to go on from.

    Raises RuntimeError where those are of another shape.
    """
    parts = {
        "base/text_encoder": text.encoder,
        "base/text_encoder_2": text.encoder_2,
        "base/vae": vae,
        "base/unet": base,
        "refiner/unet": refiner,
    }
    for name, part in parts.items():
        [file] = (directory / name).glob("*.safetensors")
        part.load_state_dict(load_file(file))


def count(*modules: nn.Module) -> int:
    """Parameters of all."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
