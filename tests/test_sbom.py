"""The bill of materials names what is installed, in the versions that are pinned."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_the_bill_of_materials_names_what_is_pinned(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    tool = Path(sys.executable).with_name("cyclonedx-py")
    options = ["--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--output-file", file]
    subprocess.run([tool, "environment", *options, sys.prefix], check=True)
    bill = json.loads(file.read_text(encoding="utf-8"))
    assert bill["metadata"]["component"]["name"] == "sdxl-farm"
    found = {canonicalize_name(one["name"]): one["version"].partition("+")[0] for one in bill["components"]}
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    assert {name: version for name, version in found.items() if pinned.get(name, version) != version} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in ("server", "worker", "embedded", "tracing")]
    wanted = {canonicalize_name(Requirement(line).name) for part in (project["dependencies"], *extras) for line in part}
    assert wanted - {"sdxl-farm"} <= found.keys()
    assert wanted - {"sdxl-farm"} <= pinned.keys()
