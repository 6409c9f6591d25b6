"""docs/deployment.md is true, as far as that can be told on one machine: what its commands name is there."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from command_lines import check_command
from helm import run_helm, unpack_helm

from farm.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
CHART = ROOT / "deploy" / "helm" / "sdxl-farm"


def commands() -> list[list[str]]:
    """All command lines of the page, as a shell would read them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    words = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [line[1:] if line[0] == "sudo" else line for line in words]


COMMANDS = commands()


def of_program(*start: str) -> list[list[str]]:
    found = [line[len(start) :] for line in COMMANDS if line[: len(start)] == list(start)]
    assert found, start
    return found


def values(line: list[str], option: str) -> list[str]:
    """What is given to an option, as ``--option value`` or ``--option=value``."""
    joined = [word.partition("=")[2] for word in line if word.startswith(f"{option}=")]
    return joined + [after for word, after in pairwise(line) if word == option]


def literals(line: list[str]) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in values(line, "--from-literal"))


def farm_commands() -> Iterator[list[str]]:
    for line in COMMANDS:
        for place, word in enumerate(line):
            if word.endswith("/bin/farm") or (word == "farm" and place == 0):
                yield ["farm", *line[place + 1 :]]


@pytest.mark.parametrize("line", list(farm_commands()), ids=" ".join)
def test_every_command_is_one_that_farm_takes(line: list[str]) -> None:
    check_command(line)


def test_all_parts_of_the_page_have_commands() -> None:
    assert {"up", "worker", "login", "token", "user"} == {line[1] for line in farm_commands()}
    assert {line[0] for line in COMMANDS} == {
        "curl",
        "docker",
        "export",
        "farm",
        "helm",
        "install",
        "kubectl",
        "pip",
        "python3",
        "sudoedit",
        "systemctl",
        "systemd-run",
        "useradd",
        "/opt/sdxl-farm/bin/pip",
    }


def test_every_variable_is_one_that_is_read() -> None:
    settings = {f"FARM_{field.upper()}" for field in Settings.model_fields}
    composed = "".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("docker-compose.yml", "deploy/compose/shared.yml")
    )
    for line in of_program("export"):
        for name in (word.partition("=")[0] for word in line):
            assert name in settings or name.startswith("AWS_") or f"${{{name}:" in composed, name
    named = set(re.findall(r"`(FARM_[A-Z_]+)\b", PAGE))
    assert named <= settings | {"FARM_REFINER_GPU"}


def test_every_file_is_there() -> None:
    for line in of_program("docker", "compose"):
        for name in values(line, "-f"):
            assert (ROOT / name).is_file(), name
    named = {word for line in COMMANDS for word in line if word.startswith("deploy/")} | set(
        re.findall(r"`(deploy/[^`]+)`", PAGE)
    )
    assert all((ROOT / name).exists() for name in named), named
    installed = {Path(name).name for name in named if name.endswith(".service")}
    assert installed == {path.name for path in (ROOT / "deploy" / "systemd").glob("*.service")}
    for line in of_program("systemctl", "enable", "--now"):
        assert {f"{name}.service" for name in line} <= installed


def test_the_program_and_its_settings_are_where_the_units_expect_them() -> None:
    unit = (ROOT / "deploy" / "systemd" / "farm-worker.service").read_text(encoding="utf-8")
    ((*_, directory),) = of_program("python3", "-m", "venv")
    assert f"ExecStart={directory}/bin/farm" in unit
    ((environment,),) = of_program("sudoedit")
    assert f"EnvironmentFile={environment}" in unit
    assert any(line[-1] == environment for line in of_program("install"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What Helm makes of each of the page's examples of values: the second changes the first."""
    directory = tmp_path_factory.mktemp("deployment")
    program = unpack_helm(directory)
    files: list[str] = []
    documents = []
    (install,) = of_program("helm", "install")
    for number, example in enumerate(re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)):
        path = directory / f"values-{number}.yaml"
        path.write_text(example, encoding="utf-8")
        files += ["--values", str(path)]
        name, chart = install[:2]
        assert ROOT / chart == CHART
        documents.append(
            run_helm(program, "template", name, str(CHART), *files, "--namespace", *values(install, "--namespace"))
        )
    return documents


def test_the_chart_takes_the_examples(rendered: list[str]) -> None:
    first, second = [[document for document in yaml.safe_load_all(text) if document] for text in rendered]
    workers = [
        {
            document["metadata"]["name"]: document["spec"].get("replicas")
            for document in documents
            if document["kind"] == "Deployment"
        }
        for documents in (first, second)
    ]
    assert workers[0]["farm-sdxl-farm-worker-gpu"] == 4
    assert {name for name in workers[1] if "worker" in name} == {
        "farm-sdxl-farm-worker-base",
        "farm-sdxl-farm-worker-refiner",
    }
    assert {document["kind"] for document in second} - {document["kind"] for document in first} == {
        "ScaledObject",
        "TriggerAuthentication",
    }
    ((service, mapping),) = of_program("kubectl", "--namespace", "render", "port-forward")
    (offered,) = [document for document in first if document["kind"] == "Service"]
    assert service == f"service/{offered['metadata']['name']}"
    assert mapping.partition(":")[2] == str(offered["spec"]["ports"][0]["port"])


def test_the_secrets_have_what_the_chart_reads(rendered: list[str]) -> None:
    made = {
        line[0]: set(literals(line))
        for line in of_program("kubectl", "--namespace", "render", "create", "secret", "generic")
    }
    read: dict[str, set[str]] = {}
    for name, key in re.findall(r"secretKeyRef: \{name: (\S+), key: (\w+)", rendered[-1]):
        read.setdefault(name, set()).add(key)
    for key, name in re.findall(r"parameter: (\w+), name: (\S+),", rendered[-1]):
        read.setdefault(name, set()).add(key)
    assert made == read


def test_whoever_asks_for_devices_asks_a_route_that_there_is() -> None:
    ((*_, url),) = of_program("curl")
    assert f"| `GET {url.removeprefix('$FARM_URL').partition('?')[0]}` |" in (ROOT / "docs" / "api.md").read_text(
        encoding="utf-8"
    )
