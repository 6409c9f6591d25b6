"""The catalog: built-in entries and a file that extends them."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import Engine, select

from farm.catalog import Catalog
from farm.errors import ConfigurationError, InvalidSubmissionError, NotFoundError
from farm.models import Batch
from producer.intake import Intake, Row
from producer.submit import submit_job


def test_the_real_sdxl_is_named_in_full() -> None:
    entry = Catalog.load().get("sdxl-1.0")
    assert entry.base == "stabilityai/stable-diffusion-xl-base-1.0"
    assert entry.refiner == "stabilityai/stable-diffusion-xl-refiner-1.0"
    assert (entry.dtype, entry.variant) == ("float16", "fp16")


def test_a_file_extends_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(
        '[pipelines.mine]\nbase = "./mine"\n[pipelines.mine.defaults]\nwidth = 512\n[pipelines.tiny]\nbase = "x"\n'
    )
    catalog = Catalog.load(file)
    assert catalog.get("mine").local_path("./mine", Path("/models")) == "/models/mine"
    assert catalog.get("mine").defaults.width == 512
    assert catalog.get("tiny").refiner is None
    assert {entry.name for entry in catalog} == {
        "mine",
        "demo",
        "tiny",
        "tiny-turbo",
        "sdxl-1.0",
        "sdxl-turbo",
        "sdxl-lightning",
        "sdxl-lcm",
        "sdxl-lcm-lora",
    }


@pytest.mark.parametrize(
    "text", ["pipelines = 3", "[pipelines.a]\nbase = 3", "[pipelines.a]\nbase='x'\ncustom_pipeline='y'", "not toml"]
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "farm.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="farm.toml"):
        Catalog.load(file)


def test_an_unknown_pipeline_is_answered_with_those_that_exist() -> None:
    with pytest.raises(
        NotFoundError, match="demo, sdxl-1.0, sdxl-lcm, sdxl-lcm-lora, sdxl-lightning, sdxl-turbo, tiny, tiny-turbo"
    ):
        Catalog.load().get("sdxl")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('base = "/models/old.ckpt"', "is a pickle, which can run code"),
        ('base = "/models/OLD.CKPT"', "is a pickle, which can run code"),
        ('base = "/m"\nunet = "/models/unet.pkl"', "is a pickle, which can run code"),
        ('base = "/m"\nbase_config = "/c"', "base names none"),
        ('base = "/m"\nvae = "/models/vae.pt"', "is a pickle, which can run code"),
        ('base = "/m"\ndefaults.scheduler = "eulr"', "there is no 'eulr'; the schedulers are"),
        ('base = "/m"\nmax_num_inference_steps = 4', "num_inference_steps exceeds max_num_inference_steps"),
        ('base = "/m"\noffload = "disk"', "offload"),
        ('base = "/m"\ndefaults.loras = [{name = "nothing"}]', "its default LoRA nothing is not in the catalog"),
        ('base = "/m"\ndefaults.loras = [{name = "tiny-warm"}]', "tiny-warm was made for other pipelines"),
    ],
)
def test_an_entry_that_cannot_work_is_refused_when_the_catalog_is_read(
    tmp_path: Path, table: str, message: str
) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(f"[pipelines.mine]\n{table}\n")
    with pytest.raises(ConfigurationError, match=message):
        Catalog.load(path)


def test_adapters_come_from_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(
        '[loras.pixels]\npath = "./loras/pixels.safetensors"\npipelines = ["sdxl-1.0"]\n'
        '[controlnets.canny]\npath = "diffusers/controlnet-canny-sdxl-1.0"\nvariant = "fp16"\n'
    )
    catalog = Catalog.load(path)
    pixels = catalog.loras.get("pixels")
    assert pixels.located(Path("/models")) == ("/models/loras", "pixels.safetensors")
    assert pixels.fits("sdxl-1.0")
    assert not pixels.fits("tiny")
    assert catalog.controlnets.get("canny").located(Path("/m")) == ("diffusers/controlnet-canny-sdxl-1.0", None)
    assert catalog.loras.get("tiny-warm").fits("tiny")
    with pytest.raises(
        NotFoundError, match="There is no LoRA 'none'; the catalog holds lcm-lora-sdxl, pixels, tiny-cool, tiny-warm"
    ):
        catalog.loras.get("none")
    for name in ("x.bin", "X.BIN"):
        path.write_text(f'[loras.old]\npath = "/m"\nweight_name = "{name}"\n')
        with pytest.raises(ConfigurationError, match=rf"{name} is a pickle"):
            Catalog.load(path)


def test_a_few_step_model_takes_few_steps_and_no_guidance(engine: Engine) -> None:
    receipt = submit_job(engine, Catalog.load(), "tiny-turbo", {}, Intake([Row({"prompt": "a fox"})]))
    with engine.connect() as connection:
        parameters = connection.execute(select(Batch.parameters).where(Batch.job_id == receipt.job_id)).scalar_one()
    assert parameters["num_inference_steps"] == 2
    assert parameters["guidance_scale"] == 0.0
    assert (parameters["scheduler"], parameters["scheduler_options"]) == ("euler_a", {"timestep_spacing": "trailing"})
    for fields, field in (({"steps": 5}, "num_inference_steps"), ({"guidance_scale": 5}, "guidance_scale")):
        with pytest.raises(InvalidSubmissionError, match=f"{field}: .* exceeds the .* of tiny-turbo"):
            submit_job(engine, Catalog.load(), "tiny-turbo", fields, Intake([Row({"prompt": "a fox"})]))


KEYS = {
    "diffusers": "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight",
    "peft": "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight",
    "kohya": "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_lora_fits_the_pipelines_of_its_architecture(tmp_path: Path, key: str) -> None:
    def write(width: int) -> None:
        save_file({key: np.zeros((4, width), np.float32)}, tmp_path / "look.safetensors")

    (tmp_path / "small" / "unet").mkdir(parents=True)
    (tmp_path / "small" / "unet" / "config.json").write_text('{"cross_attention_dim": 96}')
    path = tmp_path / "catalog.toml"
    tables = '[pipelines.small]\nbase = "./small"\n[loras.look]\npath = "./look.safetensors"\n'
    path.write_text(tables)
    for width, fits in ((2048, "sdxl-1.0"), (96, "small")):
        write(width)
        look = Catalog.load(path, tmp_path).loras.get("look")
        assert [look.fits(name) for name in ("sdxl-1.0", "small")] == [fits == "sdxl-1.0", fits == "small"]
    for width, pipelines, told in ((2048, "small", "2048 wide, not 96"), (768, "sdxl-1.0", "768 wide, not 2048")):
        write(width)
        path.write_text(f'{tables}pipelines = ["{pipelines}"]\n')
        with pytest.raises(
            ConfigurationError, match=f"look was made for another architecture than {pipelines}: .*{told}"
        ):
            Catalog.load(path, tmp_path)
    (tmp_path / "look.safetensors").write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigurationError, match="is no file of safetensors; fetch it again"):
        Catalog.load(path, tmp_path)


def test_the_demo_model_comes_with_the_farm() -> None:
    entry = Catalog.load().get("demo")
    directory = Path(entry.local_path("shipped:demo", Path("/nowhere")))
    assert Path(entry.local_path(entry.base, Path("/nowhere"))) == directory / "base"
    files = [file for file in directory.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) <= 12_000_000
