"""Writes a checkpoint in diffusers' layout as the single file that Stability published SDXL in.

Names as in https://github.com/Stability-AI/generative-models; what diffusers' ``from_single_file`` reads.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
Weights = dict[str, torch.Tensor]


def write_single_file(pipe: Any, path: Path) -> None:
    """The pipeline's weights as one file."""
    weights: Weights = {f"model.diffusion_model.{key}": weight for key, weight in unet(pipe.unet)}
    weights |= {f"first_stage_model.{key}": weight for key, weight in vae(pipe.vae)}
    place = 0
    if pipe.text_encoder is not None:
        for key, weight in pipe.text_encoder.state_dict().items():
            name = key.removeprefix("text_model.")
            weights[f"conditioner.embedders.0.transformer.text_model.{name}"] = weight
        place = 1
    weights |= {f"conditioner.embedders.{place}.model.{key}": weight for key, weight in open_clip(pipe.text_encoder_2)}
    save_file({key: weight.contiguous().clone() for key, weight in weights.items()}, path)


def unet(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    layers = module.config.layers_per_block
    with_attention = {int(match[1]) for key in module.state_dict() if (match := re.match(r"up_blocks.(\d+).att", key))}
    for key, weight in module.state_dict().items():
        name, kind = key.rsplit(".", 1)
        if name in OUTER:
            yield f"{OUTER[name]}.{kind}", weight
            continue
        if match := re.match(r"mid_block.(resnets|attentions).(\d+)\.(.*)", key):
            part, number, rest = match[1], int(match[2]), match[3]
            place = f"middle_block.{1 if part == 'attentions' else 2 * number}"
        elif match := re.match(r"(down|up)_blocks.(\d+).(\w+).(\d+)\.(.*)", key):
            part, rest = match[3], match[5]
            block, layer = int(match[2]), int(match[4])
            if part == "downsamplers":
                yield f"input_blocks.{block * (layers + 1) + layers + 1}.0.op.{kind}", weight
                continue
            if part == "upsamplers":
                after = 2 if block in with_attention else 1
                yield f"output_blocks.{block * (layers + 1) + layers}.{after}.conv.{kind}", weight
                continue
            blocks = "input_blocks" if match[1] == "down" else "output_blocks"
            first = 1 if match[1] == "down" else 0
            place = f"{blocks}.{first + block * (layers + 1) + layer}.{1 if part == 'attentions' else 0}"
        else:
            raise ValueError(f"no place for {key}")
        if part == "resnets":
            inner, kind = rest.rsplit(".", 1)
            rest = f"{RESNET[inner]}.{kind}"
        yield f"{place}.{rest}", weight


def vae(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    ups = len(module.config.up_block_types)
    for key, weight in module.state_dict().items():
        renamed = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        renamed = re.sub(r"mid_block.resnets.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", renamed)
        renamed = re.sub(r"down_blocks.(\d+).resnets", r"down.\1.block", renamed)
        renamed = re.sub(r"down_blocks.(\d+).downsamplers.0", r"down.\1.downsample", renamed)
        renamed = re.sub(r"up_blocks.(\d+).resnets", lambda found: f"up.{ups - 1 - int(found[1])}.block", renamed)
        renamed = re.sub(r"up_blocks.(\d+).upsamplers.0", lambda f: f"up.{ups - 1 - int(f[1])}.upsample", renamed)
        if "mid_block.attentions.0." in renamed:
            before, after = renamed.split("mid_block.attentions.0.")
            inner, kind = after.rsplit(".", 1)
            renamed = f"{before}mid.attn_1.{VAE_ATTENTION[inner]}.{kind}"
            # There it was a convolution.
            yield renamed, weight[:, :, None, None] if kind == "weight" and weight.ndim == 2 else weight
        else:
            yield renamed, weight


def open_clip(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    state = {key.removeprefix("text_model."): weight for key, weight in module.state_dict().items()}
    for key, weight in state.items():
        if match := re.match(r"encoder.layers.(\d+).self_attn.(q|k|v)_proj.(weight|bias)", key):
            if match[2] == "q":
                parts = [state[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
                yield f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}", torch.cat(parts)
        elif key.startswith("encoder.layers."):
            renamed = key.replace("encoder.layers.", "transformer.resblocks.").replace(".self_attn.", ".attn.")
            renamed = renamed.replace("layer_norm1", "ln_1").replace("layer_norm2", "ln_2")
            yield renamed.replace(".fc1.", ".c_fc.").replace(".fc2.", ".c_proj."), weight
        elif key == "text_projection.weight":
            yield "text_projection", weight.T
        else:
            names = {
                "embeddings.position_embedding.weight": "positional_embedding",
                "embeddings.token_embedding.weight": "token_embedding.weight",
                "final_layer_norm.weight": "ln_final.weight",
                "final_layer_norm.bias": "ln_final.bias",
            }
            if key in names:
                yield names[key], weight
