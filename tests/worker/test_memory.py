"""A batch too large for the memory is rendered in parts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from worker.memory import MemoryLimits, OutOfMemoryError, in_parts

KIND = "tiny, base, text, 64x64"


@pytest.fixture
def limits(tmp_path: Path) -> MemoryLimits:
    return MemoryLimits(tmp_path / "models" / "memory-limits.json", "a device")


def device_of(size: int, seen: list[int], error: Exception):
    """Renders parts of at most ``size`` images."""

    def render(part: slice) -> list[int]:
        numbers = list(range(8))[part]
        seen.append(len(numbers))
        if len(numbers) > size:
            raise error
        return numbers

    return render


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()],
    ids=["gpu", "python"],
)
def test_parts_are_halved_until_they_fit_and_the_size_is_remembered(limits: MemoryLimits, error: Exception) -> None:
    seen: list[int] = []
    parts = in_parts(8, KIND, limits, device_of(3, seen, error))
    assert [number for part in parts for number in part] == list(range(8))
    assert seen == [8, 4, 2, 2, 2, 2]
    assert limits.limit(KIND) == 2
    # The next batch begins with what fits, in another process too; other sizes and devices know nothing of it.
    seen.clear()
    again = MemoryLimits(limits._file.path, "a device")
    assert len(in_parts(8, KIND, again, device_of(3, seen, error))) == 4
    assert seen == [2, 2, 2, 2]
    assert again.limit("tiny, base, text, 128x128") is None
    assert MemoryLimits(limits._file.path, "another").limit(KIND) is None


def test_no_call_is_larger_than_is_fastest(limits: MemoryLimits) -> None:
    seen: list[int] = []
    parts = in_parts(8, KIND, limits, device_of(8, seen, MemoryError()), at_most=3)
    assert [number for part in parts for number in part] == list(range(8))
    assert seen == [3, 3, 2]
    assert limits.limit(KIND) is None


def test_one_image_that_does_not_fit_is_an_error_with_a_remedy(limits: MemoryLimits) -> None:
    with pytest.raises(OutOfMemoryError, match="One image .* smaller size, .* vae_tiling"):
        in_parts(2, KIND, limits, device_of(0, [], torch.OutOfMemoryError("CUDA out of memory.")))


def test_other_errors_pass(limits: MemoryLimits) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        in_parts(2, KIND, limits, device_of(0, [], RuntimeError("shapes do not match")))
    assert limits.limit(KIND) is None


def test_a_damaged_file_is_begun_anew(limits: MemoryLimits) -> None:
    limits.remember(KIND, 4)
    limits._file.path.write_text("{")
    assert limits.limit(KIND) is None
    limits.remember(KIND, 2)
    assert json.loads(limits._file.path.read_text()) == {f"a device, {KIND}": 2}


#: Renders a batch of 64 with memory for less than that beyond what is in use after the first: one needs about 140 MiB,
#: all of them 700. To latents, because pictures are decoded one by one in any case.
LIMITED = """
import resource, sys
from pathlib import Path
from conformance.cases import parameters, quiet
from farm.catalog import Catalog
from farm.states import Stage
from worker import stages
from worker.memory import MemoryLimits, in_parts
from worker.pipelines import load

pipeline = load(Catalog.load().get("tiny"), Path(sys.argv[1]), "cpu", {Stage.BASE})
changes = {"width": 512, "height": 512, "num_inference_steps": 1, "refiner_split": None, "output_format": "latents"}
images = [parameters(f"p{n}", n, **changes) for n in range(64)]
stages.render_base_only(pipeline, images[:1], {}, quiet)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
limits = MemoryLimits(Path(sys.argv[2]), "cpu")
parts = in_parts(64, "k", limits, lambda part: stages.render_base_only(pipeline, images[part], {}, quiet))
print(sum(len(part) for part in parts), limits.limit("k"))
"""


def test_memory_that_really_runs_out(models_directory: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(models_directory), str(tmp_path / "limits.json")]
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    rendered, limit = result.stdout.split()[-2:]
    assert rendered == "64"
    assert int(limit) in (2, 4, 8, 16, 32)
