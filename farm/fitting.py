"""For which pipelines a LoRA was made, as the headers of the files on this machine tell; no weight is read.

LoRAs of different architectures look alike from outside. What tells them apart is the width of the text embeddings that
the UNet's cross-attention reads: 768 in Stable Diffusion 1, 1024 in 2, 2048 in SDXL.
"""

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.adapters import SAFE, Lora, local_path

if TYPE_CHECKING:
    from farm.catalog import Pipeline

SDXL_WIDTH = 2048
#: A header is JSON behind its length in 8 bytes, and at most so long (https://github.com/huggingface/safetensors).
MAX_HEADER_BYTES = 100_000_000
#: The keys of the cross-attention in diffusers' and peft's form, and in kohya's.
_CROSS_ATTENTION = re.compile(
    r"attn2[._](processor[._])?to_k[._](lora[._])?(lora_A|lora_down|down)(\.default)?\.weight$"
)


def fitted(lora: Lora, pipelines: Collection["Pipeline"], models_directory: Path) -> Lora:
    """The LoRA, with the pipelines that it fits where its entry names none and its file is here.

    Raises ValueError if it fits none of them, or not those that its entry names.
    """
    width = _lora_width(lora, models_directory)
    if width is None:
        return lora
    widths = {pipeline.name: _pipeline_width(pipeline, models_directory) for pipeline in pipelines}
    fits = tuple(name for name, needed in widths.items() if needed in (None, width))
    named = [name for name in lora.pipelines if name in widths and name not in fits]
    if named or not fits:
        wanted = {widths[name] for name in named or widths}
        raise ValueError(
            f"LoRA {lora.name} was made for another architecture than {', '.join(named or widths)}: its text "
            f"embeddings are {width} wide, not {_listed(wanted)}. Remove it, or correct its path or its pipelines."
        )
    return lora if lora.pipelines else lora.model_copy(update={"pipelines": fits})


def _listed(widths: Iterable[int | None]) -> str:
    return " or ".join(str(width) for width in sorted(filter(None, widths)))


def _lora_width(lora: Lora, models_directory: Path) -> int | None:
    """Of the text embeddings that it acts on; None where its file is not here, or it leaves cross-attention alone."""
    folder, name = lora.located(models_directory)
    file = Path(folder) / (name or f"pytorch_lora_weights{SAFE}")
    if not file.is_file():
        return None
    for key, entry in _header(file).items():
        if _CROSS_ATTENTION.search(key):
            return int(entry["shape"][1])
    return None


def _pipeline_width(pipeline: "Pipeline", models_directory: Path) -> int | None:
    """Of the text embeddings that its UNet reads; None for a checkpoint that this machine is yet to get."""
    located = local_path(pipeline.base, models_directory)
    # Names on the model hub are relative, and are left as they are.
    if located != pipeline.base or Path(located).is_absolute():
        config = Path(located) / "unet" / "config.json"
        try:
            return int(json.loads(config.read_text(encoding="utf-8"))["cross_attention_dim"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return SDXL_WIDTH


def _header(file: Path) -> dict[str, Any]:
    """Raises ValueError for what is no safetensors file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        header: dict[str, Any] = json.loads(text)
    except ValueError:
        raise ValueError(f"{file} is no file of safetensors; fetch it again") from None
    return header
