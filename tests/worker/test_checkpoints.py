"""Checkpoints: what entries need, what is here, and fetching the rest from a hub over real HTTP."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub import COMMIT, Hub, running_hub
from typer.testing import CliRunner, Result

from farm.adapters import ControlNet, IpAdapter, Lora
from farm.catalog import Catalog, Pipeline
from farm.checkpoints.holdings import held_entries, look
from farm.checkpoints.needs import Layout, Need, needs_of
from farm.checkpoints.selection import IncompleteError, wanted_files
from farm.cli import app
from farm.settings import get_settings
from farm.states import Stage
from worker.pipelines import load
from worker.tiny import write_tiny_checkpoint
from worker.tiny_adapters import write_tiny_adapters

BASE = "studio/tiny-xl"
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
CATALOG = f"""
[pipelines.studio]
base = "{BASE}"
dtype = "float32"
variant = "fp16"
defaults = {{width = 64, height = 64, num_inference_steps = 2, loras = [{{name = "warm"}}]}}
[loras.warm]
path = "studio/adapters"
weight_name = "tiny-warm.safetensors"
[pipelines.elsewhere]
base = "studio/no-such-thing"
[pipelines.copied]
base = "./copied/base"
dtype = "float32"
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory, models_directory: Path) -> dict[str, Path]:
    """A checkpoint with variants, and with much beside that nobody reads; adapters."""
    write_tiny_checkpoint(models_directory / "tiny")
    write_tiny_adapters(models_directory / "tiny-adapters", models_directory / "tiny")
    root = tmp_path_factory.mktemp("hub") / "base"
    shutil.copytree(models_directory / "tiny" / "base", root)
    for file in (*root.glob("unet/*.safetensors"), *root.glob("text_encoder*/*.safetensors")):
        shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    (root / "vae_1_0").mkdir()
    # Bytes of its own: equal files are fetched once.
    other = models_directory / "tiny" / "refiner" / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(other, root / "vae_1_0" / "diffusion_pytorch_model.fp16.safetensors")
    for name in ("README.md", "sd_xl_base.safetensors", "unet/diffusion_pytorch_model.bin", "unet/model.onnx"):
        (root / name).write_bytes(b"not to be fetched")
    return {BASE: root, "studio/adapters": models_directory / "tiny-adapters"}


@pytest.fixture
def hub(repositories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, an empty cache, and a catalog that names what is on the hub."""
    catalog = tmp_path / "farm.toml"
    catalog.write_text(CATALOG)
    monkeypatch.setenv("FARM_CATALOG", str(catalog))
    monkeypatch.setenv("FARM_DATA", str(tmp_path / "data"))
    get_settings.cache_clear()
    with running_hub() as hub:
        hub.repositories |= repositories
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield hub
    get_settings.cache_clear()


def farm(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def test_what_is_pulled_is_what_loads_offline(
    hub: Hub, tmp_path: Path, models_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command as people run it, in a process of its own."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "farm.cli", "models", "pull", "studio"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].startswith(f"studio: base {BASE}: complete, ")
    fetched = set(hub.asked)
    assert UNET in fetched
    # Of this there is no variant.
    assert "vae/diffusion_pytorch_model.safetensors" in fetched
    assert "tiny-warm.safetensors" in fetched
    unwanted = (
        "README.md",
        ".bin",
        ".onnx",
        "sd_xl_base.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "cool.safetensors",
    )
    assert [name for name in fetched if name.endswith(unwanted)] == []

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    catalog = Catalog.load(tmp_path / "farm.toml", tmp_path)
    loaded = load(catalog.get("studio"), tmp_path, "cpu", {Stage.BASE}, catalog)
    loaded.adapters[Stage.BASE].use_loras([(catalog.loras.get("warm"), 1.0)])
    assert {"pipelines.studio", "loras.warm"} <= set(held_entries(catalog, tmp_path))
    assert "pipelines.elsewhere" not in held_entries(catalog, tmp_path)
    assert len(hub.asked) == len(fetched)


def test_list_says_what_is_here(hub: Hub, tmp_path: Path) -> None:
    before = {(one["entry"], one["role"]): one for one in json.loads(farm("list", "--json").stdout)}
    assert not before["studio", "base"]["complete"]
    assert before["studio", "base"]["missing"] == "nothing of it is here"
    assert before["tiny", "base"]["usable"]
    assert hub.asked == []
    assert farm("pull", "warm").exit_code == 0
    after = {(one["entry"], one["role"]): one for one in json.loads(farm("list", "--json").stdout)}
    assert after["warm", "weights"]["complete"]
    assert (
        after["studio", "LoRA warm"]["bytes"]
        == (hub.repositories["studio/adapters"] / "tiny-warm.safetensors").stat().st_size
    )
    lines = farm("list").stdout.splitlines()
    assert any(line.startswith("  ✓ LoRA warm ") for line in lines)
    assert any(line.startswith("  ✗ base ") and "nothing of it is here" in line for line in lines)


def test_bytes_that_were_damaged_on_their_way_are_not_kept(hub: Hub) -> None:
    hub.damaged.add(UNET)
    ran = farm("pull", "studio", "--json")
    assert ran.exit_code == 1
    assert "has the SHA-256" in ran.stderr
    assert "was removed" in ran.stderr
    assert hub.asked.count(UNET) == 2
    (base,) = [
        one for one in json.loads(farm("list", "--json").stdout) if (one["entry"], one["role"]) == ("studio", "base")
    ]
    assert base["missing"] == f"{UNET} is missing"
    hub.damaged.clear()
    assert farm("pull", "studio").exit_code == 0
    # The others were whole.
    assert hub.asked.count("vae/diffusion_pytorch_model.safetensors") == 1


def test_what_came_before_a_download_broke_off_is_kept(hub: Hub) -> None:
    hub.broken[UNET] = 100
    ran = farm("pull", "studio")
    assert ran.exit_code == 1
    assert "was not fetched completely" in ran.stderr
    assert "whole files are kept" in ran.stderr
    before = [name for name in hub.asked if not name.startswith(UNET)]
    hub.broken.clear()
    assert farm("pull", "studio").exit_code == 0
    assert farm("verify", "studio").exit_code == 0
    kept = "vae/diffusion_pytorch_model.safetensors"
    assert before.count(kept) == hub.asked.count(kept) == 1


def test_a_hub_that_cannot_be_reached_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    ran = farm("pull", "warm")
    assert ran.exit_code == 1
    assert "the model hub cannot be reached" in ran.stderr
    assert "HF_ENDPOINT" in ran.stderr


def test_names_that_nobody_knows(hub: Hub) -> None:
    assert "The model hub has no studio/no-such-thing" in farm("pull", "elsewhere").stderr
    assert "The catalog has no 'sdxl'; it holds copied, demo, elsewhere" in farm("pull", "sdxl").stderr
    assert "say --all" in farm("verify").stderr


def test_verify_names_what_is_damaged(hub: Hub, tmp_path: Path, models_directory: Path) -> None:
    assert farm("pull", "studio").exit_code == 0
    assert "its hashes are the hub's" in farm("verify", "studio").stdout
    snapshot = next((tmp_path / "cache").glob(f"models--studio--tiny-xl/snapshots/{COMMIT}"))
    weights = (snapshot / UNET).resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    described = (snapshot / "unet" / "config.json").resolve()
    described.write_bytes(described.read_bytes().replace(b"a", b"b", 1))
    ran = farm("verify", "studio")
    assert ran.exit_code == 1
    assert f"{UNET} has the SHA-256" in ran.stderr
    assert "config.json does not have the hash that the hub states" in ran.stderr
    assert "Run: farm models pull studio" in ran.stderr
    assert farm("pull", "studio").exit_code == 0
    assert farm("verify", "studio").exit_code == 0


def test_a_folder_of_this_machine_that_is_not_whole(hub: Hub, tmp_path: Path, models_directory: Path) -> None:
    folder = tmp_path / "data" / "models" / "copied" / "base"
    assert "cannot be fetched" in farm("pull", "copied").stderr
    shutil.copytree(models_directory / "tiny" / "base", folder)
    assert "its safetensors are whole; nobody states hashes" in farm("verify", "copied").stdout
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    ran = farm("verify", "copied")
    assert ran.exit_code == 1
    assert "bytes, and should have" in ran.stderr
    assert f"Copy it to {folder} again, complete." in ran.stderr
    weights.unlink()
    assert "there is no unet/*.safetensors" in farm("verify", "copied").stderr


# What entries need


def test_needs_are_read_from_all_that_an_entry_names(tmp_path: Path) -> None:
    entry = Pipeline(
        name="mine",
        base="https://huggingface.co/owner/name/blob/main/folder/base.safetensors",
        base_config="owner/config",
        vae="owner/vae",
        unet="owner/name/unet.safetensors",
        refiner=str(tmp_path / "refiner.safetensors"),
    )
    needs = {need.role: need for need in needs_of(entry, Catalog([entry]), tmp_path)}
    assert {role: (need.repository, need.layout, need.name) for role, need in needs.items()} == {
        "base": ("owner/name", Layout.FILE, "folder/base.safetensors"),
        "base_config": ("owner/config", Layout.CONFIG, ""),
        "refiner": (None, Layout.FILE, "refiner.safetensors"),
        "vae": ("owner/vae", Layout.MODEL, ""),
        "unet": ("owner/name", Layout.FILE, "unet.safetensors"),
    }
    assert needs["refiner"].path == tmp_path
    lora = Lora(name="l", path="owner/loras/l.safetensors")
    net = ControlNet(name="c", path="owner/canny", variant="fp16")
    ip = IpAdapter(name="i", path="h94/IP-Adapter", subfolder="sdxl_models", weight_name="ip-adapter_sdxl.safetensors")
    named = {need.where for entry in (lora, net, ip) for need in needs_of(entry, Catalog([]), tmp_path)}
    assert named == {
        "owner/loras/l.safetensors",
        "owner/canny",
        "h94/IP-Adapter/sdxl_models/image_encoder",
        "h94/IP-Adapter/sdxl_models/ip-adapter_sdxl.safetensors",
    }


def test_parts_of_weights_are_all_wanted() -> None:
    part = "diffusion_pytorch_model.fp16-0000{}-of-00002.safetensors"
    names = ["config.json", part.format(1), "diffusion_pytorch_model.safetensors.index.fp16.json"]
    need = Need("vae", None, "a/b", Layout.MODEL, variant="fp16")
    with pytest.raises(IncompleteError, match="1 of 2 parts"):
        wanted_files(need, names, lambda _: {})
    assert wanted_files(need, [*names, part.format(2)], lambda _: {}) == [
        "config.json",
        *sorted([*names[1:], part.format(2)]),
    ]


def test_a_variant_that_does_not_exist_is_said(models_directory: Path, repositories: dict[str, Path]) -> None:
    need = Need("base", models_directory / "tiny" / "base", None, Layout.PIPELINE, variant="fp8")
    assert look(need).missing == "there are no weights of the variant fp8"
