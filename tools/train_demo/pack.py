"""The trained parts as diffusers lays them out, in half precision: what ships with the farm."""

from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel

from tools.train_demo.models import PREDICTION, Text
from worker.tiny import save_pipelines


def pack(
    directory: Path, text: Text, vae: AutoencoderKL, base: UNet2DConditionModel, refiner: UNet2DConditionModel
) -> int:
    """Write ``directory/base`` and ``directory/refiner``; returns their size in bytes. The parts are halved by it."""
    for part in (text.encoder, text.encoder_2, vae, base, refiner):
        part.half()
    tokenizers, encoders = (text.tokenizer, text.tokenizer_2), (text.encoder, text.encoder_2)
    save_pipelines(directory, tokenizers, encoders, vae, (base, refiner), PREDICTION)
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
