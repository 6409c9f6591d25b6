"""Documentation that lists things lists all of them."""

import re
from pathlib import Path

import pytest
import typer

from dashboard.app import create_app
from dashboard.context import EXTENSION
from farm.catalog import Defaults, Pipeline
from farm.cli import app
from farm.settings import Settings
from farm.states import BATCH_TRANSITIONS, ENDED_BATCH_STATES, BatchState

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(FARM_[A-Z0-9_]+)` \| (.*?) \|", read("docs/settings.md"), re.MULTILINE))
    assert rows.keys() == {f"FARM_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default is not None and field.default_factory is None:
            documented = rows[f"FARM_{name.upper()}"].strip("`")
            expected = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert documented == expected, name


def test_every_field_of_the_catalog_is_documented() -> None:
    table = read("docs/settings.md").split("| field of a pipeline |")[1].split("\n\n")[0]
    named = {
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert named == set(Pipeline.model_fields) - {"name"}
    defaults = next(line for line in table.splitlines() if line.startswith("| `defaults`"))
    assert set(re.findall(r"`(\w+)`", defaults)) == {"defaults", *Defaults.model_fields}


@pytest.mark.parametrize(
    ("page", "prefixes"),
    [
        ("docs/api.md", ("/api/", "/healthz", "/readyz", "/metrics")),
        ("docs/compatible.md", ("/v1/", "/sdapi/", "/files/")),
    ],
)
def test_every_route_is_documented(settings: Settings, page: str, prefixes: tuple[str, ...]) -> None:
    application = create_app(settings)
    application.extensions[EXTENSION].engine.dispose()
    routes = {
        f"{method} {rule.rule.replace('<int:', '<')}"
        for rule in application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(prefixes)
    }
    assert routes == set(re.findall(r"^\| `([A-Z]+ /\S+)` \|", read(page), re.MULTILINE))


def test_every_command_is_documented() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = read("docs/cli.md")
    for name in commands:
        assert re.search(rf"farm {name}\b|`{name}`", text), name


def test_the_state_diagram_shows_every_transition_and_no_other() -> None:
    diagram = read("docs/architecture.md").split("stateDiagram-v2")[1].split("```")[0]
    drawn = {tuple(pair) for pair in re.findall(r"^\s*(\w+) --> (\w+)", diagram, re.MULTILINE)}
    legal = {(str(state), str(following)) for state in BatchState for following in BATCH_TRANSITIONS[state]}
    assert drawn == legal
    ends = set(re.findall(r"^\s*(\w+) --> \[\*\]", diagram, re.MULTILINE))
    assert ends == {str(state) for state in ENDED_BATCH_STATES}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", read(page)):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", ["docs/guarantees.md", "docs/security.md"])
def test_every_promise_is_tested(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", read(page)))
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert named <= there, named - there
    assert len(named) > 25
