import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conformance.cases import parameters, quiet
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from worker import stages, tiny
from worker.pipelines import LoadedPipeline
from worker.tiny import write_tiny_checkpoint

#: Two processes write at the same moment: they part when all is imported and before torch has threads.
WRITE_TWICE = """
import os, pathlib, sys
from worker.tiny import write_tiny_checkpoint
other = os.fork()
write_tiny_checkpoint(pathlib.Path(sys.argv[1]))
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def test_every_run_writes_the_same_bytes_even_two_at_once(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "here")
    writers = subprocess.run([sys.executable, "-c", WRITE_TWICE, str(tmp_path / "there")], check=False)
    assert writers.returncode == 0
    written = hashes(tmp_path / "here")
    assert written == hashes(tmp_path / "there")
    assert {"base/model_index.json", "refiner/model_index.json"} <= written.keys()
    assert not any(name.endswith((".bin", ".ckpt", ".pt", ".pkl")) for name in written)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "there"]
    assert sum(file.stat().st_size for file in tmp_path.rglob("*")) / 2 < 12e6


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_tiny_checkpoint(tmp_path / str(seed), seed)
    first, second = hashes(tmp_path / "0"), hashes(tmp_path / "1")
    assert {name for name in first if first[name] != second[name]} == {
        name for name in first if name.endswith(".safetensors")
    }


def test_a_checkpoint_that_is_there_is_left_alone(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    (tmp_path / "tiny" / "mark").touch()
    write_tiny_checkpoint(tmp_path / "tiny", seed=1)
    assert (tmp_path / "tiny" / "mark").exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny._write

    def write_and_fail(directory: Path, seed: int) -> None:
        whole(directory, seed)
        raise OSError("the disk is full")

    monkeypatch.setattr(tiny, "_write", write_and_fail)
    with pytest.raises(OSError, match="full"):
        write_tiny_checkpoint(tmp_path / "tiny")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_tiny_checkpoint(directory)
    return directory


def test_it_has_sdxls_architecture(checkpoint: Path) -> None:
    base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", use_safetensors=True)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(checkpoint / "refiner", use_safetensors=True)
    assert base.vae_scale_factor == 8
    assert (base.vae.config.latent_channels, base.vae.config.scaling_factor) == (4, 0.13025)
    assert base.unet.config.addition_embed_type == refiner.unet.config.addition_embed_type == "text_time"
    widths = [base.text_encoder.config.hidden_size, base.text_encoder_2.config.hidden_size]
    assert base.unet.config.cross_attention_dim == sum(widths)
    assert refiner.unet.config.cross_attention_dim == widths[1]
    assert (refiner.tokenizer, refiner.text_encoder) == (None, None)
    assert refiner.config.requires_aesthetics_score
    assert base.config.force_zeros_for_empty_prompt
    assert (base.text_encoder.config.hidden_act, base.text_encoder_2.config.hidden_act) == ("quick_gelu", "gelu")
    for part in ("text_encoder_2", "vae"):
        ours, theirs = (hashes(checkpoint / kind / part) for kind in ("base", "refiner"))
        assert ours == theirs


def test_its_tokenizers_are_clips(checkpoint: Path) -> None:
    base = StableDiffusionXLPipeline.from_pretrained(checkpoint / "base", use_safetensors=True)
    for tokenizer, encoder, pad in (
        (base.tokenizer, base.text_encoder, "<|endoftext|>"),
        (base.tokenizer_2, base.text_encoder_2, "!"),
    ):
        ids = tokenizer("A red FOX", padding="max_length").input_ids
        tokens = tokenizer.convert_ids_to_tokens(ids)
        assert tokens[:6] == ["<|startoftext|>", "a</w>", "red</w>", "fox</w>", "<|endoftext|>", pad]
        assert len(ids) == tokenizer.model_max_length == 77
        assert (tokenizer.pad_token, len(tokenizer)) == (pad, encoder.config.vocab_size)
        assert encoder.config.eos_token_id == tokenizer.eos_token_id
        for text in ("Füchse, 狐 🦊 \x7f", "".join(map(chr, range(33, 256)))):
            assert tokenizer.unk_token_id not in tokenizer(text, add_special_tokens=False).input_ids


def test_pictures_are_colourful_and_follow_prompt_seed_and_refiner(pipeline: LoadedPipeline) -> None:
    def picture(prompt: str, seed: int, split: float | None = None) -> np.ndarray:
        image = parameters(prompt, seed, refiner_split=split, num_inference_steps=6)
        if split is None:
            return np.asarray(stages.render_base_only(pipeline, [image], {}, quiet)[0], float)
        latents = stages.render_base(pipeline, [image], {}, quiet)
        return np.asarray(stages.render_refiner(pipeline, [image], {}, latents, quiet)[0], float)

    fox = picture("a red fox in the snow", 0)
    assert fox.std(axis=(0, 1)).min() > 15
    assert (fox.max(axis=2) - fox.min(axis=2)).mean() > 25
    # Mean differences of 8-bit levels that anybody sees.
    for other, least in (
        (picture("an owl at night", 0), 15),
        (picture("a red fox in the snow", 1), 15),
        (picture("a red fox in the snow", 0, split=0.5), 2),
    ):
        assert np.abs(fox - other).mean() > least
