"""How the demo model is trained: it goes on where it was stopped, and all stages fit together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tools.train_demo.captions import say, vocabulary
from tools.train_demo.loop import Training
from tools.train_demo.models import TEXT_LENGTH, make_base, make_refiner, make_text, make_vae, read
from tools.train_demo.words import GRID, cells
from tools.train_demo.world import COLOURS, Layout, Scene, Shape, Style, Thing, scenes

SEED = 3
SHIPPED = Path(__file__).parents[2] / "farm" / "shipped" / "demo"


def train(file: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """A line that is fitted in 12 steps, as it is in the end."""
    torch.manual_seed(0)
    line = nn.Linear(2, 1)
    training = Training(file, {"line": line}, 12, 0.1, SEED)

    def loss_of(chance: torch.Generator) -> torch.Tensor:
        if training.step == stop_at:
            raise KeyboardInterrupt
        seen = torch.randn(8, 2, generator=chance)
        loss: torch.Tensor = (line(seen) - seen.sum(dim=1, keepdim=True)).square().mean()
        return loss

    training.run("line", loss_of)
    training.finish()
    return dict(line.named_parameters())


def test_what_was_stopped_ends_as_what_was_not(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped.safetensors", stop_at=7)
    assert int(load_file(tmp_path / "stopped.safetensors")["step"]) == 7
    stopped, through = train(tmp_path / "stopped.safetensors"), train(tmp_path / "through.safetensors")
    assert all(torch.equal(stopped[name], through[name]) for name in through)


def test_all_stages_in_miniature(tmp_path: Path) -> None:
    steps = [
        argument for stage in ("words", "vae", "decoder", "base", "refiner") for argument in (f"--{stage}-steps", "2")
    ]
    command = [sys.executable, "-m", "tools.train_demo", "all", "--work", str(tmp_path), *steps]
    ran = subprocess.run(
        [*command, "--scenes", "16", "--prompts", "4", "--threads", "1"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    scores = json.loads(ran.stdout[ran.stdout.index("{\n") :])
    # Nothing was learnt, and nothing is made up.
    assert scores["prompts"] == 4
    assert scores["both"] == 0
    assert (tmp_path / "demo" / "refiner" / "model_index.json").exists()
    scheduler = json.loads((tmp_path / "demo" / "base" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction"


def test_what_ships_can_be_trained_further() -> None:
    text, vae, base, refiner = make_text(), make_vae(), make_base(), make_refiner()
    read(SHIPPED, text, vae, base, refiner)
    for name, part in (("base", base), ("refiner", refiner)):
        shipped = load_file(SHIPPED / name / "unet" / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(value, shipped[key].float()) for key, value in part.state_dict().items())


def test_what_is_packed_is_scored_without_training(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.train_demo", "score", "--packed", str(SHIPPED), "--prompts", "4"]
    ran = subprocess.run(
        [*command, "--work", str(tmp_path / "none"), "--threads", "1"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert json.loads(ran.stdout[ran.stdout.index("{\n") :])["background"] == 1
    assert [*tmp_path.rglob("*.safetensors")] == []


def test_cells_say_what_is_where() -> None:
    things = Thing(Shape.STAR, "red", "small"), Thing(Shape.RING, "blue", "large")
    colours, shapes = cells(Scene("white", Style.FLAT, Layout.ABOVE, things))
    middle = [([*COLOURS][colours[cell]], [*Shape, None][shapes[cell]]) for cell in range(GRID // 2, GRID * GRID, GRID)]
    white, red, blue = ("white", None), ("red", Shape.STAR), ("blue", Shape.RING)
    assert middle == [white, red, red, white, *[blue] * 4]


def test_captions_are_made_of_known_words_and_short_enough() -> None:
    known, tokenizer = set(vocabulary()), make_text().tokenizer
    for seed, scene in zip(range(300), scenes(SEED, held_out=None), strict=False):
        said = say(scene, seed)
        assert set(said.replace(",", " ").split()) <= known
        assert len(tokenizer(said).input_ids) <= TEXT_LENGTH


def test_where_one_thing_stands_may_be_left_unsaid() -> None:
    scene = Scene("white", Style.FLAT, Layout.LEFT, (Thing(Shape.STAR, "red", "small"),))
    assert say(scene) == "a small red star on the left on a white background"
    assert say(scene, placed=False) == "a small red star on a white background"
