"""``farm catalog``: what this machine's catalog says, and whether a file for it can be used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.settings import get_settings
from producer.commands.terms import JsonOption, friendly_errors, print_json, say

if TYPE_CHECKING:
    from farm.catalog import Catalog

catalog = typer.Typer(
    help="The catalog of this machine: show it, and check a file before it is used.", no_args_is_help=True
)


@catalog.command()
def show(as_json: JsonOption = False) -> None:
    """Print all entries as a catalog's file would have them, each with where it comes from.

    What is left out has its default. The output can be kept as a file for FARM_CATALOG.
    """
    with friendly_errors():
        from farm.catalog import KINDS, Catalog

        settings = get_settings()
        built_in, found = Catalog.load(), Catalog.load(settings.catalog, settings.models_directory)
        tables = {table: _entries(found, table) for table in KINDS}
        known = {table: _entries(built_in, table) for table in KINDS}
        if as_json:
            print_json(
                {
                    table: {
                        name: {"source": _source(fields, known[table].get(name)), **fields}
                        for name, fields in entries.items()
                    }
                    for table, entries in tables.items()
                }
            )
            return
        import tomlkit

        document = tomlkit.document()
        for table, entries in tables.items():
            named = tomlkit.table(is_super_table=True)
            for name, fields in entries.items():
                entry = tomlkit.table()
                entry.comment(_source(fields, known[table].get(name)))
                entry.update(fields)
                named[name] = entry
            if entries:
                document[table] = named
        say(tomlkit.dumps(document).strip())


@catalog.command()
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A file for FARM_CATALOG.")]) -> None:
    """Say what is wrong with a catalog's file: each table and field, and what to do.

    Workers, producers and dashboards read the file that FARM_CATALOG names when they start.
    """
    with friendly_errors():
        from farm.catalog import KINDS, Catalog

        read = Catalog.load(file, get_settings().models_directory)
        say(f"{file} can be used: with the built-in entries there are")
        for table in KINDS:
            say(f"  {table}: {', '.join(_entries(read, table)) or 'none'}")


def _entries(catalog: "Catalog", table: str) -> dict[str, dict[str, Any]]:
    """Of one table, what was said of each entry."""
    entries: Any = catalog if table == "pipelines" else getattr(catalog, table)
    return {
        entry.name: entry.model_dump(mode="json", exclude={"name"}, exclude_defaults=True, exclude_none=True)
        for entry in entries
    }


def _source(fields: dict[str, Any], built_in: dict[str, Any] | None) -> str:
    if built_in is None:
        return "of the file"
    return "built in" if fields == built_in else "of the file, in place of a built-in one"
