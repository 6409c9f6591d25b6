"""What no line of the farm may do: run what was read, load what can run code, trust what a model brings along."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("farm", "producer", "worker", "dashboard", "migrations", "benchmarks", "examples")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

#: Modules that read objects which run code.
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
#: Calls by their last two names.
CALLS = {"torch.load", "yaml.load", "os.system", "os.popen", "builtins.eval"}
NAMES = {"eval", "exec", "compile", "__import__"}


def forbidden(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines, and what is done there."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, one.name) for one in names if one.name.split(".")[0] in PICKLING)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PICKLING:
                yield node.lineno, module
            case ast.Call(func=ast.Name(id=name)) if name in NAMES:
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)) if f"{module}.{name}" in CALLS:
                yield node.lineno, f"{module}.{name}"
            case ast.keyword(arg="trust_remote_code"):
                yield node.value.lineno, "trust_remote_code"
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                yield node.value.lineno, "shell=True"
            case ast.keyword(arg="use_safetensors", value=ast.Constant(value=False)):
                yield node.value.lineno, "use_safetensors=False"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_was_read(path: Path) -> None:
    assert [*forbidden(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_it_would_be_found() -> None:
    bad = "import pickle\nfrom dill import x\ntorch.load(f)\neval('1')\nrun('ls', shell=True)\nload(a, trust_remote_code=True)\n"
    assert [line for line, _ in forbidden(ast.parse(bad))] == [1, 2, 3, 4, 5, 6]
