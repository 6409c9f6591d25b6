"""The client as people install it: the wheel and what it asks for, in an otherwise empty environment."""

import json
import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from running import RunningFarm

ROOT = Path(__file__).parents[2]
#: What belongs to servers, workers and people who want more; importing the client must not even look for it.
FOREIGN = (
    *("torch", "diffusers", "transformers", "flask", "celery", "kombu", "redis", "sqlalchemy", "psycopg", "boto3"),
    *("alembic", "waitress", "numpy", "safetensors", "pandas", "polars", "IPython"),
)
#: What the client needs at times, and imports then.
LATER = ("PIL", "openpyxl", "pydantic", "pydantic_settings", "farm.settings", "farm.spec", "producer.expand", "typer")


def needed(package: Distribution, extra: str = "") -> set[str]:
    """The names of a package's requirements, and of theirs."""
    found: set[str] = set()
    for text in package.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found.add(requirement.name)
            for wanted in requirement.extras or {""}:
                found |= needed(distribution(requirement.name), wanted)
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the unpacked wheel and links to what it needs, and nothing else."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    source = tmp_path_factory.mktemp("source")
    # Built from a copy: building leaves things behind.
    for name in ("farm", "producer", "worker", "dashboard", "migrations"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", ROOT / name, source], check=True)
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels, source]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = wheels.glob("sdxl_farm-*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--no-compile", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True, text=True)
    (package,) = Distribution.discover(name="sdxl-farm", path=[str(site)])
    for name in needed(package):
        installed = distribution(name)
        tops = {
            Path(file).parts[0] for file in installed.files or () if Path(file).parts[0] not in ("..", "__pycache__")
        }
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(installed.locate_file(top))).absolute())
    return site


def run(site: Path, code: str, **variables: str) -> str:
    """What a program prints that finds the standard library and this directory alone."""
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_wheel_alone_renders_pictures(environment: Path, running: RunningFarm, tmp_path: Path) -> None:
    code = f"""
import importlib.util, json
present = [name for name in {FOREIGN!r} if importlib.util.find_spec(name)]
from producer import Farm, MissingPackageError
with Farm() as farm:
    job = farm.submit(["a fox"], steps=2, size="64x64", refiner_split=None).wait(progress=True)
    paths = job.download({str(tmp_path)!r})
    size = job.grid(cell=32).size
    latents = farm.submit(["a fox"], steps=2, size="64x64", refiner_split=None, output_format="latents").wait()
    try:
        latents.image(0).latents()
    except MissingPackageError as error:
        missing = str(error)
print(json.dumps([present, [path.name for path in paths], size, missing]))
"""
    output = run(environment, code, FARM_URL=running.url, FARM_TOKEN=running.token)
    present, names, size, missing = json.loads(output.splitlines()[-1])
    assert present == []
    # Type checkers believe a package's annotations only with this.
    assert (environment / "producer" / "py.typed").exists()
    assert names == [path.name for path in tmp_path.iterdir()]
    assert len(size) == 2
    assert "pip install 'sdxl-farm[arrays]'" in missing


def test_the_command_line_comes_with_it(environment: Path, running: RunningFarm) -> None:
    code = "sys.argv = ['farm', 'whoami', '--json']; from farm.cli import main; main()"
    told = json.loads(run(environment, code, FARM_URL=running.url, FARM_TOKEN=running.token))
    assert told["role"] == "admin"


def test_importing_the_client_imports_little_else() -> None:
    """That it is quick follows from it: under 0.3 s from a cold start."""
    code = f"""
import sys
from producer import Farm
print([name for name in {(*FOREIGN, *LATER)!r} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"


def test_the_service_does_not_load_the_client() -> None:
    code = "import sys, producer.service; print('httpx' in sys.modules and 'producer.client' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "False"


def test_every_name_can_be_imported() -> None:
    code = "from producer import *; import producer; print(all(name in globals() for name in producer.__all__))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "True"
