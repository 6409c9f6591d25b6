"""LoRA, textual inversion, ControlNet and IP-Adapter against plain diffusers, as its documentation loads them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance.cases import LANDSCAPE, MASK, PORTRAIT, RING, parameters, render
from conformance.plain import expected
from PIL import Image
from safetensors.torch import load_file, save_file

from farm.adapters import IpAdapter, Lora
from farm.batch_sizes import BatchSizes
from farm.catalog import Catalog
from farm.states import Stage
from producer.batching import group_to_batches
from producer.expand import Shape
from worker.adapters import AdapterError
from worker.pipelines import LoadedPipeline, load

SMALL = {"width": 192, "height": 128, "num_inference_steps": 6, "refiner_split": 0.6}
ALONE = {**SMALL, "refiner_split": None}
SECOND_WAY = {**ALONE, "refiner_strength": 0.5}
IMAGE = {"image": LANDSCAPE, "strength": 0.7}
INPAINT = {"image": LANDSCAPE, "mask_image": MASK, "strength": 0.9}
EDGES = {"controlnet": "tiny-edges", "control_image": LANDSCAPE, "controlnet_conditioning_scale": 0.7}
TWO_NETS = {
    "controlnet": "tiny-edges, tiny-depth",
    "control_image": [LANDSCAPE, PORTRAIT],
    "controlnet_conditioning_scale": [0.7, 0.4],
    "control_guidance_start": [0.0, 0.2],
    "control_guidance_end": [0.8, 1.0],
}
LOOK = {"ip_adapter": "tiny-look", "ip_adapter_image": PORTRAIT, "ip_adapter_scale": 0.6}
ADAPTED: dict[str, dict[str, Any]] = {
    "one lora": {"loras": "tiny-warm:0.8"},
    "two loras": {"loras": "tiny-warm:0.5, tiny-cool:0.7"},
    "textual inversion": {"textual_inversions": "tiny-glyph"},
    "one controlnet": EDGES,
    "two controlnets": TWO_NETS,
    "ip adapter": LOOK,
    "all together": {"loras": "tiny-cool", "textual_inversions": "tiny-glyph", **EDGES, **LOOK},
}
STARTS: dict[str, dict[str, Any]] = {"text": {}, "image": IMAGE, "inpaint": INPAINT}
WAYS: dict[str, dict[str, Any]] = {"base alone": ALONE, "ensemble": SMALL, "second way": SECOND_WAY}


def same(picture: Image.Image, other: Image.Image) -> bool:
    return picture.size == other.size and np.array_equal(np.asarray(picture), np.asarray(other))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("adapted", ADAPTED)
def test_every_pixel_is_that_of_plain_diffusers_and_no_trace_is_left(
    pipeline: LoadedPipeline, models_directory: Path, adapted: str, start: str, way: str
) -> None:
    if "controlnet" in ADAPTED[adapted] and (start, way) == ("image", "ensemble"):
        # diffusers cannot, and the door refuses it.
        way = "second way"
    without = parameters("a <glyph> fox", 1, **WAYS[way], **STARTS[start])
    wanted = parameters("a <glyph> fox", 1, **WAYS[way], **STARTS[start], **ADAPTED[adapted])
    plain = expected(models_directory, without)
    picture = render(pipeline, [wanted])[0]
    after = render(pipeline, [without])[0]
    assert same(picture, expected(models_directory, wanted))
    assert same(after, plain)
    assert not same(picture, plain)


def test_an_ip_adapter_follows_without_guidance_too(pipeline: LoadedPipeline, models_directory: Path) -> None:
    wanted = parameters("a castle", 3, **ALONE, **LOOK, guidance_scale=1.0)
    assert same(render(pipeline, [wanted])[0], expected(models_directory, wanted))


def test_loras_are_kept_within_their_memory_and_come_back(
    pipeline: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm, cool = (parameters("a fox", 1, **ALONE, loras=name) for name in ("tiny-warm", "tiny-cool"))
    first = render(pipeline, [warm])[0]
    monkeypatch.setattr("worker.adapters.LORA_MEMORY", 1)
    render(pipeline, [cool])
    assert "tiny_warm" not in pipeline.base.unet.peft_config
    assert same(render(pipeline, [warm])[0], first)


@pytest.mark.usefixtures("pipeline")
def test_a_lora_of_another_architecture_is_named(models_directory: Path, tmp_path: Path) -> None:
    weights = load_file(models_directory / "tiny-adapters" / "tiny-warm.safetensors")
    save_file(
        {name: torch.cat([weight, weight], dim=-1) for name, weight in weights.items()}, tmp_path / "x.safetensors"
    )
    catalog = Catalog([Catalog.load().get("tiny")], loras=[Lora(name="wide", path=str(tmp_path / "x.safetensors"))])
    pipeline = load(catalog.get("tiny"), models_directory, "cpu", {Stage.BASE}, catalog)
    with pytest.raises(AdapterError, match="Lora wide cannot be used: .* another architecture"):
        render(pipeline, [parameters("a fox", 1, **ALONE, loras="wide")])
    # The pipeline is as it was.
    assert render(pipeline, [parameters("a fox", 1, **ALONE)])


@pytest.mark.parametrize(
    "adapted",
    [
        {"loras": "tiny-warm:0.8"},
        {"textual_inversions": "tiny-glyph"},
        EDGES,
        TWO_NETS,
        LOOK,
        {"loras": "tiny-cool", **TWO_NETS, **LOOK},
        {**TWO_NETS, **LOOK, "image": LANDSCAPE, "strength": 0.7, "refiner_split": None},
        {**LOOK, "guidance_scale": 1.0},
    ],
    ids=["lora", "inversion", "controlnet", "controlnets", "ip adapter", "together", "from an image", "no guidance"],
)
def test_in_a_batch_each_keeps_to_its_own_pictures(pipeline: LoadedPipeline, adapted: dict[str, Any]) -> None:
    images = []
    for number, ref in enumerate((LANDSCAPE, PORTRAIT, RING)):
        own = {name: ref for name in ("image", "ip_adapter_image") if name in adapted}
        if "control_image" in adapted:
            own["control_image"] = [ref, LANDSCAPE][: len(adapted["controlnet"].split(","))]
        images.append(parameters(f"a <glyph> {number}", number, **{**SMALL, **adapted, **own}))
    assert len(group_to_batches(map(Shape, images), BatchSizes(8))) == 1
    alone = [render(pipeline, [image])[0] for image in images]
    for together, single in zip(render(pipeline, images), alone, strict=True):
        assert np.abs(np.asarray(together, int) - np.asarray(single, int)).max() <= 1
    assert not same(alone[0], alone[1])


@pytest.mark.usefixtures("pipeline")
def test_a_lora_of_which_only_a_part_fits_is_named(models_directory: Path, tmp_path: Path) -> None:
    weights = load_file(models_directory / "tiny-adapters" / "tiny-warm.safetensors")
    deeper = {
        name.replace("layers.0.", "layers.7."): matrix.clone()
        for name, matrix in weights.items()
        if "layers.0." in name
    }
    save_file(weights | deeper, tmp_path / "x.safetensors")
    catalog = Catalog([Catalog.load().get("tiny")], loras=[Lora(name="more", path=str(tmp_path / "x.safetensors"))])
    pipeline = load(catalog.get("tiny"), models_directory, "cpu", {Stage.BASE}, catalog)
    with pytest.raises(AdapterError, match="Lora more cannot be used: .* matrices have a layer here"):
        render(pipeline, [parameters("a fox", 1, **ALONE, loras="more")])


class Bait:
    """Makes a file when it is read from a pickle."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.usefixtures("pipeline")
def test_an_image_encoder_that_is_a_pickle_is_not_loaded(models_directory: Path, tmp_path: Path) -> None:
    folder = tmp_path / "look"
    shutil.copytree(models_directory / "tiny-adapters" / "tiny-look", folder)
    encoder = folder / "image_encoder" / "model.safetensors"
    ran = tmp_path / "ran"
    torch.save({**load_file(encoder), "more": Bait(ran)}, encoder.with_name("pytorch_model.bin"))
    encoder.unlink()
    entry = IpAdapter(name="pickled", path=str(folder), weight_name="ip-adapter_sdxl.safetensors")
    catalog = Catalog([Catalog.load().get("tiny")], ip_adapters=[entry])
    pipeline = load(catalog.get("tiny"), models_directory, "cpu", {Stage.BASE}, catalog)
    with pytest.raises(AdapterError, match="IpAdapter pickled cannot be used"):
        render(pipeline, [parameters("a fox", 1, **ALONE, ip_adapter="pickled", ip_adapter_image=PORTRAIT)])
    assert not ran.exists()
    # It would have run.
    torch.load(encoder.with_name("pytorch_model.bin"), weights_only=False)
    assert ran.exists()
