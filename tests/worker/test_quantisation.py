"""8-bit linear layers: what they do to a picture, and what a machine without the means says."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farm.catalog import Catalog, Pipeline
from farm.errors import ConfigurationError
from farm.states import Stage
from worker.pipelines import load

#: Where `make .venv/.installed` puts torchao: beside the environment, since with it diffusers and peft import it in each
#: worker that starts.
BESIDE = Path(sys.prefix) / "quantisation"

#: Prints the error in decibels of int8 against float32, without and with a LoRA, and after it; then what is said of fp8 here.
IN_8_BITS = """
import sys
from pathlib import Path
import numpy as np
from conformance.cases import parameters, render
from farm.catalog import Catalog
from farm.errors import ConfigurationError
from farm.states import Stage
from worker.pipelines import load

tiny = Catalog.load().get("tiny").model_copy(update={"refiner": None})
image = parameters("a fox", 1, width=128, height=128, num_inference_steps=4, refiner_split=None)
warm = image.model_copy(update={"loras": type(image).model_validate(
    {**image.model_dump(), "loras": [{"name": "tiny-warm"}]}).loras})
exact, rough = (
    load(tiny.model_copy(update={"quantisation": kind}), Path(sys.argv[1]), "cpu", {Stage.BASE})
    for kind in ("none", "int8")
)

def picture(pipeline, image):
    return np.asarray(render(pipeline, [image])[0], np.float64)

def decibels(first, second):
    return 10 * np.log10(255**2 / np.mean((first - second) ** 2))

plain = picture(exact, image)
print(
    decibels(plain, picture(rough, image)),
    decibels(picture(exact, warm), picture(rough, warm)),
    decibels(plain, picture(exact, warm)),
    decibels(plain, picture(rough, image)),
)
try:
    load(tiny.model_copy(update={"quantisation": "fp8"}), Path(sys.argv[1]), "cpu", {Stage.BASE})
except ConfigurationError as error:
    print(error)
"""


def entry(kind: str) -> Pipeline:
    return Catalog.load().get("tiny").model_copy(update={"refiner": None, "quantisation": kind})


def test_int8_changes_pictures_a_little_and_takes_loras_and_fp8_needs_a_gpu(models_directory: Path) -> None:
    tests = Path(__file__).parents[1]
    paths = ":".join(map(str, (tests, tests.parent, BESIDE)))
    result = subprocess.run(
        [sys.executable, "-c", IN_8_BITS, str(models_directory)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    *_, errors, refusal = result.stdout.splitlines()
    alone, with_lora, of_the_lora, after = map(float, errors.split())
    assert 30 < alone < 60
    assert with_lora > of_the_lora + 10
    assert after == alone
    assert "this device cannot compute in fp8" in refusal
    assert refusal.endswith('set quantisation = "int8" or "none".')


def test_without_torchao_the_remedy_is_named(models_directory: Path) -> None:
    assert importlib.util.find_spec("torchao") is None
    with pytest.raises(ConfigurationError, match=r"needs torchao .* pip install 'sdxl-farm\[quantisation\]'"):
        load(entry("int8"), models_directory, "cpu", {Stage.BASE})
