"""LoRA, textual inversion, ControlNet and IP-Adapter against plain diffusers, as its documentation loads them."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conformance.cases import INPUTS, LANDSCAPE, MASK, PORTRAIT, RING, parameters, quiet
from PIL import Image
from safetensors.torch import load_file

from farm.adapters import Lora
from farm.catalog import Catalog
from farm.spec import ImageParameters
from farm.states import Stage
from worker import latents, stages
from worker.adapters import AdapterError
from worker.pipelines import LoadedPipeline, load

SMALL = {"width": 192, "height": 128, "num_inference_steps": 6, "refiner_split": 0.6}
ALONE = {**SMALL, "refiner_split": None}
IMAGE = {"image": LANDSCAPE, "strength": 0.7}
INPAINT = {"image": LANDSCAPE, "mask_image": MASK, "strength": 0.9}


def render(pipeline: LoadedPipeline, images: list[ImageParameters]) -> list[Image.Image]:
    if not images[0].refined:
        return stages.render_base_only(pipeline, images, INPUTS, quiet)
    sent = latents.pack(stages.render_base(pipeline, images, INPUTS, quiet), range(len(images)))
    return stages.render_refiner(pipeline, images, INPUTS, latents.unpack(sent), quiet)


def same(picture: Image.Image, expected: Image.Image) -> bool:
    return picture.size == expected.size and np.array_equal(np.asarray(picture), np.asarray(expected))


class Plain:
    """Plain diffusers over the tiny checkpoint, loaded anew for each test."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.adapters = models / "tiny-adapters"

    def load(self, kind: Any, part: str = "base", **more: Any) -> Any:
        pipe = kind.from_pretrained(
            self.models / "tiny" / part, dtype=torch.float32, use_safetensors=True, add_watermarker=False, **more
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def call(self, pipe: Any, wanted: ImageParameters, /, **more: Any) -> Any:
        return pipe(
            prompt=wanted.prompt,
            guidance_scale=wanted.guidance_scale,
            num_inference_steps=wanted.num_inference_steps,
            generator=torch.Generator("cpu").manual_seed(wanted.seed),
            **more,
        ).images

    def ensemble(self, base: Any, wanted: ImageParameters, refiner: Any = None, /, **more: Any) -> Image.Image:
        noisy = self.call(base, wanted, denoising_end=wanted.refiner_split, output_type="latent", **more)
        refiner = refiner or self.load(diffusers.StableDiffusionXLImg2ImgPipeline, "refiner")
        picture: Image.Image = self.call(refiner, wanted, denoising_start=wanted.refiner_split, image=noisy)[0]
        return picture


@pytest.fixture
def plain(pipeline: LoadedPipeline, models_directory: Path) -> Plain:
    assert pipeline.base is not None
    return Plain(models_directory)


SIZE = {"width": 192, "height": 128}


@pytest.mark.parametrize("loras", [{"tiny-warm": 0.8}, {"tiny-warm": 0.5, "tiny-cool": 0.7}], ids=["one", "two"])
@pytest.mark.parametrize("shared", [SMALL, ALONE], ids=["refined", "base alone"])
def test_loras(pipeline: LoadedPipeline, plain: Plain, loras: dict[str, float], shared: dict[str, Any]) -> None:
    wanted = parameters("a fox", 1, **shared, loras=[{"name": name, "weight": loras[name]} for name in loras])
    without = parameters("a fox", 1, **shared)
    before = render(pipeline, [without])[0]
    picture = render(pipeline, [wanted])[0]
    after = render(pipeline, [without])[0]

    base = plain.load(diffusers.StableDiffusionXLPipeline)
    for name in loras:
        base.load_lora_weights(plain.adapters, weight_name=f"{name}.safetensors", adapter_name=name)
    base.set_adapters([*loras], [*loras.values()])
    expected = plain.call(base, wanted, **SIZE)[0] if shared is ALONE else plain.ensemble(base, wanted, **SIZE)
    assert same(picture, expected)
    # Switched off, it leaves no trace.
    assert same(before, after)
    assert not same(picture, before)


def test_loras_are_kept_within_their_memory_and_come_back(
    pipeline: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cool = (parameters("a fox", 1, **ALONE, loras=name) for name in ("tiny-warm", "tiny-cool"))
    first = render(pipeline, [warm])[0]
    monkeypatch.setattr("worker.adapters.LORA_MEMORY", 1)
    render(pipeline, [cool])
    assert "tiny_warm" not in pipeline.base.unet.peft_config
    assert same(render(pipeline, [warm])[0], first)


def test_a_lora_of_another_architecture_is_named(models_directory: Path, tmp_path: Path) -> None:
    weights = load_file(models_directory / "tiny-adapters" / "tiny-warm.safetensors")
    from safetensors.torch import save_file

    save_file(
        {name: torch.cat([weight, weight], dim=-1) for name, weight in weights.items()}, tmp_path / "x.safetensors"
    )
    catalog = Catalog([Catalog.load().get("tiny")], loras=[Lora(name="wide", path=str(tmp_path / "x.safetensors"))])
    pipeline = load(catalog.get("tiny"), models_directory, "cpu", {Stage.BASE}, catalog)
    with pytest.raises(AdapterError, match="Lora wide cannot be used: .* another architecture"):
        render(pipeline, [parameters("a fox", 1, **ALONE, loras="wide")])
    # The pipeline is as it was.
    assert render(pipeline, [parameters("a fox", 1, **ALONE)])


@pytest.mark.parametrize("shared", [SMALL, ALONE], ids=["refined", "base alone"])
def test_textual_inversion(pipeline: LoadedPipeline, plain: Plain, shared: dict[str, Any]) -> None:
    wanted = parameters("a <glyph> fox", 1, **shared, textual_inversions="tiny-glyph")
    without = parameters("a <glyph> fox", 1, **shared)
    before = render(pipeline, [without])[0]
    picture = render(pipeline, [wanted])[0]
    assert same(render(pipeline, [without])[0], before)
    assert not same(picture, before)

    vectors = load_file(plain.adapters / "tiny-glyph.safetensors")
    base = plain.load(diffusers.StableDiffusionXLPipeline)
    refiner = plain.load(diffusers.StableDiffusionXLImg2ImgPipeline, "refiner")
    base.load_textual_inversion(
        vectors["clip_l"], token="<glyph>", text_encoder=base.text_encoder, tokenizer=base.tokenizer
    )
    for pipe in (base, refiner):
        pipe.load_textual_inversion(
            vectors["clip_g"], token="<glyph>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2
        )
    if shared is ALONE:
        assert same(picture, plain.call(base, wanted, **SIZE)[0])
    else:
        assert same(picture, plain.ensemble(base, wanted, refiner, **SIZE))


EDGES = {"controlnet": "tiny-edges", "control_image": LANDSCAPE, "controlnet_conditioning_scale": 0.7}
TWO = {
    "controlnet": "tiny-edges, tiny-depth",
    "control_image": [LANDSCAPE, PORTRAIT],
    "controlnet_conditioning_scale": [0.7, 0.4],
    "control_guidance_start": [0.0, 0.2],
    "control_guidance_end": [0.8, 1.0],
}


@pytest.mark.parametrize("control", [EDGES, TWO], ids=["one", "two"])
@pytest.mark.parametrize("mode", ["text", "image", "inpaint"])
def test_controlnet(pipeline: LoadedPipeline, plain: Plain, control: dict[str, Any], mode: str) -> None:
    start = {"text": {}, "image": IMAGE, "inpaint": INPAINT}[mode]
    wanted = parameters("a castle", 3, **ALONE, **start, **control)
    (picture,) = render(pipeline, [wanted])
    assert not same(picture, render(pipeline, [parameters("a castle", 3, **ALONE, **start)])[0])

    nets = [
        diffusers.ControlNetModel.from_pretrained(plain.adapters / name, dtype=torch.float32, use_safetensors=True)
        for name in wanted.controlnet
    ]
    shown = [INPUTS[ref] for ref in wanted.control_image]
    one = len(nets) == 1
    more: dict[str, Any] = {
        **SIZE,
        "controlnet_conditioning_scale": 0.7 if one else [0.7, 0.4],
        "control_guidance_start": 0.0 if one else [0.0, 0.2],
        "control_guidance_end": 1.0 if one else [0.8, 1.0],
    }
    given = {"controlnet": nets[0] if one else nets}
    shown_as = shown[0] if one else shown
    if mode == "text":
        pipe = plain.load(diffusers.StableDiffusionXLControlNetPipeline, **given)
        more["image"] = shown_as
    elif mode == "image":
        pipe = plain.load(diffusers.StableDiffusionXLControlNetImg2ImgPipeline, **given)
        more |= {"image": INPUTS[LANDSCAPE], "strength": 0.7, "control_image": shown_as}
    else:
        pipe = plain.load(diffusers.StableDiffusionXLControlNetInpaintPipeline, **given)
        more |= {"image": INPUTS[LANDSCAPE], "mask_image": INPUTS[MASK], "strength": 0.9, "control_image": shown_as}
    assert same(picture, plain.call(pipe, wanted, **more)[0])


def test_controlnet_with_the_refiner(pipeline: LoadedPipeline, plain: Plain) -> None:
    wanted = parameters("a castle", 3, **SMALL, **EDGES)
    net = diffusers.ControlNetModel.from_pretrained(
        plain.adapters / "tiny-edges", dtype=torch.float32, use_safetensors=True
    )
    base = plain.load(diffusers.StableDiffusionXLControlNetPipeline, controlnet=net)
    expected = plain.ensemble(base, wanted, **SIZE, image=INPUTS[LANDSCAPE], controlnet_conditioning_scale=0.7)
    assert same(render(pipeline, [wanted])[0], expected)


@pytest.mark.parametrize(
    ("shared", "start"),
    [(SMALL, {}), (ALONE, {}), (ALONE, IMAGE), (ALONE, INPAINT), ({**ALONE, "guidance_scale": 1.0}, {})],
    ids=["refined", "base alone", "image", "inpaint", "no guidance"],
)
def test_ip_adapter(pipeline: LoadedPipeline, plain: Plain, shared: dict[str, Any], start: dict[str, Any]) -> None:
    look = {"ip_adapter": "tiny-look", "ip_adapter_image": PORTRAIT, "ip_adapter_scale": 0.6}
    wanted = parameters("a castle", 3, **shared, **start, **look)
    without = parameters("a castle", 3, **shared, **start)
    before = render(pipeline, [without])[0]
    picture = render(pipeline, [wanted])[0]
    assert same(render(pipeline, [without])[0], before)
    assert not same(picture, before)

    more: dict[str, Any] = {"ip_adapter_image": INPUTS[PORTRAIT]}
    if start is INPAINT:
        pipe = plain.load(diffusers.StableDiffusionXLInpaintPipeline)
        more |= {**SIZE, "image": INPUTS[LANDSCAPE], "mask_image": INPUTS[MASK], "strength": 0.9}
    elif start is IMAGE:
        pipe = plain.load(diffusers.StableDiffusionXLImg2ImgPipeline)
        more |= {"image": INPUTS[LANDSCAPE], "strength": 0.7}
    else:
        pipe = plain.load(diffusers.StableDiffusionXLPipeline)
        more |= SIZE
    pipe.load_ip_adapter(plain.adapters / "tiny-look", subfolder="", weight_name="ip-adapter_sdxl.safetensors")
    pipe.set_ip_adapter_scale(0.6)
    expected = plain.ensemble(pipe, wanted, **more) if shared is SMALL else plain.call(pipe, wanted, **more)[0]
    assert same(picture, expected)


@pytest.mark.parametrize(
    "adapted",
    [
        {"loras": "tiny-warm:0.8"},
        {"textual_inversions": "tiny-glyph"},
        EDGES,
        {"ip_adapter": "tiny-look", "ip_adapter_image": LANDSCAPE},
        {"loras": "tiny-cool", **EDGES, "ip_adapter": "tiny-look", "ip_adapter_image": LANDSCAPE},
    ],
    ids=["lora", "inversion", "controlnet", "ip adapter", "together"],
)
def test_in_a_batch_each_keeps_to_its_own_pictures(pipeline: LoadedPipeline, adapted: dict[str, Any]) -> None:
    images = []
    for number, ref in enumerate((LANDSCAPE, PORTRAIT, RING)):
        # Of an IP-Adapter diffusers takes one picture for all.
        own = {"control_image": ref} if "control_image" in adapted else {}
        images.append(parameters(f"a <glyph> {number}", number, **SMALL, **{**adapted, **own}))
    alone = [render(pipeline, [image])[0] for image in images]
    for together, single in zip(render(pipeline, images), alone, strict=True):
        assert np.abs(np.asarray(together, int) - np.asarray(single, int)).max() <= 1
