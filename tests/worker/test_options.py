"""Options of a catalog entry, against plain diffusers with the same calls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conformance import reference
from conformance.cases import INPUTS, parameters, quiet, render
from conformance.original_layout import write_single_file

from farm.catalog import Catalog, Pipeline
from farm.errors import ConfigurationError
from farm.spec import ImageParameters
from farm.states import Stage
from worker.options import projections_are_fused
from worker.pipelines import load
from worker.stages import render_refiner

IMAGE = parameters("a fox", 1, width=192, height=128, num_inference_steps=4, refiner_split=None)
TINY = Catalog.load().get("tiny")


def entry(**options: Any) -> Pipeline:
    return Pipeline.model_validate({**TINY.model_dump(), "refiner": None, **options})


def plain(models: Path, prepare: Callable[[Any], object]) -> np.ndarray[Any, Any]:
    pipe = reference.load_anew(diffusers.StableDiffusionXLPipeline, models / "tiny" / "base", watermark=False)
    prepare(pipe)
    return plain_picture(pipe)


@pytest.mark.parametrize(
    ("options", "prepare"),
    [
        ({"vae_slicing": True}, lambda pipe: pipe.vae.enable_slicing()),
        ({"vae_tiling": True}, lambda pipe: pipe.vae.enable_tiling()),
        ({"attention_slicing": True}, lambda pipe: pipe.enable_attention_slicing()),
        ({"channels_last": True}, lambda pipe: pipe.unet.to(memory_format=torch.channels_last)),
        ({"fused_qkv": True}, lambda pipe: pipe.fuse_qkv_projections(unet=True, vae=False)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_is_what_diffusers_does_under_its_name(
    models_directory: Path, options: dict[str, bool], prepare: Callable[[Any], object]
) -> None:
    pipeline = load(entry(**options), models_directory, "cpu", {Stage.BASE})
    assert np.array_equal(np.asarray(render(pipeline, [IMAGE])[0]), plain(models_directory, prepare))


def plain_picture(pipe: Any) -> np.ndarray[Any, Any]:
    picture = pipe(
        prompt="a fox",
        width=192,
        height=128,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(1),
    ).images[0]
    return np.asarray(picture)


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")
def test_in_float16_pictures_are_decoded_in_float32_as_by_diffusers(models_directory: Path) -> None:
    pipeline = load(entry(dtype="float16"), models_directory, "cpu", {Stage.BASE})
    assert pipeline.decoder.vae.dtype == torch.float32
    half = reference.load_anew(
        diffusers.StableDiffusionXLPipeline, models_directory / "tiny" / "base", watermark=False, dtype=torch.float16
    )
    for _ in range(2):
        assert np.array_equal(np.asarray(render(pipeline, [IMAGE])[0]), plain_picture(half))
    # Nothing is cast to and fro: diffusers' own VAE would be rounded by it.
    assert pipeline.base.vae.dtype == torch.float16


def test_the_decoders_dtype_can_be_chosen(models_directory: Path) -> None:
    exact = np.asarray(render(load(entry(), models_directory, "cpu", {Stage.BASE}), [IMAGE])[0], np.float64)
    pipeline = load(entry(vae_dtype="bfloat16", vae_tiling=True), models_directory, "cpu", {Stage.BASE})
    assert (pipeline.decoder.vae.dtype, pipeline.base.vae.dtype) == (torch.bfloat16, torch.float32)
    assert pipeline.decoder.vae.use_tiling
    picture = np.asarray(render(pipeline, [IMAGE])[0], np.float64)
    error = np.mean((picture - exact) ** 2)
    assert error > 0
    assert 10 * np.log10(255**2 / error) > 35


def test_a_vae_of_ones_own_replaces_the_checkpoints(models_directory: Path, tmp_path: Path) -> None:
    vae = diffusers.AutoencoderKL.from_pretrained(models_directory / "tiny" / "base" / "vae", use_safetensors=True)
    with torch.no_grad():
        vae.decoder.conv_out.bias += 0.3
    vae.save_pretrained(tmp_path / "vae", safe_serialization=True)
    own = Pipeline.model_validate({**TINY.model_dump(), "vae": str(tmp_path / "vae")})
    pipeline = load(own, models_directory, "cpu", frozenset(Stage))
    assert pipeline.base.vae is pipeline.refiner.vae
    picture = np.asarray(render(pipeline, [IMAGE])[0])
    assert np.array_equal(picture, plain(models_directory, lambda pipe: setattr(pipe, "vae", vae)))
    alone = load(own, models_directory, "cpu", {Stage.REFINER})
    assert torch.equal(alone.refiner.vae.decoder.conv_out.bias, vae.decoder.conv_out.bias)


def test_a_unet_of_ones_own_replaces_the_bases(models_directory: Path, tmp_path: Path) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(
        models_directory / "tiny" / "base" / "unet", use_safetensors=True
    )
    with torch.no_grad():
        unet.conv_out.weight *= 0.5
    unet.save_pretrained(tmp_path / "unet", safe_serialization=True)
    own = Pipeline.model_validate({**TINY.model_dump(), "unet": str(tmp_path / "unet")})
    pipeline = load(own, models_directory, "cpu", frozenset(Stage))
    picture = np.asarray(render(pipeline, [IMAGE])[0])
    assert np.array_equal(picture, plain(models_directory, lambda pipe: setattr(pipe, "unet", unet)))
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    from_file = load(own.model_copy(update={"unet": str(file)}), models_directory, "cpu", frozenset(Stage))
    assert np.array_equal(picture, np.asarray(render(from_file, [IMAGE])[0]))
    with pytest.raises(ConfigurationError, match="its unet .* cannot be loaded"):
        load(
            own.model_copy(update={"unet": str(models_directory / "tiny/refiner/unet" / file.name)}),
            models_directory,
            "cpu",
            {Stage.BASE},
        )
    with pytest.raises(ConfigurationError, match="its unet .* cannot be loaded"):
        load(own.model_copy(update={"unet": str(tmp_path / "none")}), models_directory, "cpu", {Stage.BASE})


@pytest.mark.parametrize("stages", [frozenset(Stage), frozenset({Stage.REFINER})], ids=["both", "refiner"])
def test_single_files_in_the_original_layout_give_the_same_pictures(
    models_directory: Path, tmp_path: Path, stages: frozenset[Stage]
) -> None:
    folder = load(TINY, models_directory, "cpu", stages)
    paths = {}
    for part, kind in (
        ("base", diffusers.StableDiffusionXLPipeline),
        ("refiner", diffusers.StableDiffusionXLImg2ImgPipeline),
    ):
        paths[part] = str(tmp_path / f"{part}.safetensors")
        write_single_file(reference.load_anew(kind, models_directory / "tiny" / part, None), Path(paths[part]))
        paths[f"{part}_config"] = str(models_directory / "tiny" / part)
    single = load(Pipeline.model_validate({**TINY.model_dump(), **paths}), models_directory, "cpu", stages)
    refined = parameters("a fox", 1, width=192, height=128, num_inference_steps=6, refiner_split=0.6)
    if Stage.BASE in stages:
        assert np.array_equal(np.asarray(render(single, [IMAGE])[0]), np.asarray(render(folder, [IMAGE])[0]))
        assert np.array_equal(np.asarray(render(single, [refined])[0]), np.asarray(render(folder, [refined])[0]))
        assert single.base.text_encoder_2 is single.refiner.text_encoder_2
        return
    latents = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    pictures = [render_refiner(pipeline, [refined], {}, latents, quiet)[0] for pipeline in (single, folder)]
    assert np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))


def test_no_weight_is_in_memory_twice(models_directory: Path) -> None:
    pipeline = load(TINY, models_directory, "cpu", frozenset(Stage))
    pipes = [
        *(pipeline.mode(Stage.BASE, mode) for mode in ("text", "image", "inpaint")),
        *(pipeline.mode(Stage.REFINER, mode) for mode in ("image", "inpaint")),
        *(pipeline.controlled(mode, ["tiny-edges"]) for mode in ("text", "image", "inpaint")),
    ]
    for part in ("text_encoder_2", "vae", "tokenizer_2"):
        assert len({id(getattr(pipe, part)) for pipe in pipes}) == 1, part
    assert len({id(pipe.unet) for pipe in pipes}) == 2
    assert len({id(pipe.text_encoder) for pipe in pipes if pipe.text_encoder is not None}) == 1
    assert len({id(pipe.controlnet) for pipe in pipes[5:]}) == 1
    weights = [weight for pipe in pipes for module in (pipe.unet, pipe.vae) for weight in module.parameters()]
    addresses = {weight.data_ptr() for weight in weights}
    once = {
        weight.data_ptr()
        for module in (pipeline.base.unet, pipeline.refiner.unet, pipeline.base.vae)
        for weight in module.parameters()
    }
    assert addresses == once
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_other_modes_keep_the_dtype(models_directory: Path) -> None:
    half = load(entry(dtype="bfloat16"), models_directory, "cpu", {Stage.BASE})
    for mode in ("image", "inpaint"):
        assert half.mode(Stage.BASE, mode).unet.dtype == torch.bfloat16


def test_what_the_machine_lacks_is_named(models_directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="offload moves weights off a GPU"):
        load(entry(offload="model"), models_directory, "cpu", {Stage.BASE})
    with pytest.raises(ConfigurationError, match="xformers cannot be used"):
        load(entry(xformers=True), models_directory, "cpu", {Stage.BASE})


@pytest.mark.parametrize("mode", ["regional", "full", "max-autotune"])
def test_compiling_is_asked_of_torch(models_directory: Path, mode: str) -> None:
    # Compiling itself is put off to the first picture, and needs a C++ compiler.
    unet = load(entry(compile=mode), models_directory, "cpu", {Stage.BASE}).base.unet
    compiled = [name for name, module in unet.named_modules() if module._compiled_call_impl is not None]
    if mode != "regional":
        assert compiled == [""]
    else:
        assert compiled
        assert all("transformer_blocks" in name for name in compiled)


def test_fused_projections_leave_loras_and_ip_adapters_their_effect(models_directory: Path) -> None:
    plain_pipeline, fused = (
        load(entry(fused_qkv=value), models_directory, "cpu", {Stage.BASE}) for value in (False, True)
    )

    def pictures(**changes: Any) -> list[np.ndarray[Any, Any]]:
        image = ImageParameters.model_validate({**IMAGE.model_dump(), **changes})
        return [np.asarray(render(pipeline, [image])[0], np.int16) for pipeline in (plain_pipeline, fused)]

    without = pictures()[0]
    for changes in (
        {},
        {"loras": [{"name": "tiny-warm"}]},
        {"ip_adapter": "tiny-look", "ip_adapter_image": next(iter(INPUTS))},
        {},
    ):
        one, other = pictures(**changes)
        assert np.abs(one - other).max() <= 1
        assert np.array_equal(one, without) == (not changes)


def test_attention_by_a_chosen_kernel_gives_the_same_picture(models_directory: Path) -> None:
    expected = np.asarray(render(load(entry(), models_directory, "cpu", {Stage.BASE}), [IMAGE])[0], np.int16)
    for kernel in ("flash", "cudnn", "math"):
        pipeline = load(entry(attention=kernel), models_directory, "cpu", {Stage.BASE})
        picture = np.asarray(render(pipeline, [IMAGE])[0], np.int16)
        assert np.abs(picture - expected).max() <= 1
        # What is not there on a CPU is passed over; afterwards all is as it was.
        assert torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()


def test_on_a_gpu_the_fast_forms_are_the_default() -> None:
    assert projections_are_fused(entry(), "cuda:0")
    assert not projections_are_fused(entry(), "cpu")
    for other in ({"attention_slicing": True}, {"xformers": True}, {"quantisation": "int8"}, {"fused_qkv": False}):
        assert not projections_are_fused(entry(**other), "cuda:0")
