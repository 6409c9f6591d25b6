"""``farm models``: the catalog's checkpoints and adapters on this machine."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from farm.errors import CheckpointError, NotFoundError
from farm.settings import get_settings
from producer.commands.terms import Exit, JsonOption, friendly_errors, messages, output, print_json, say, warn

if TYPE_CHECKING:
    from farm.catalog import Catalog
    from farm.checkpoints.holdings import Holding
    from farm.checkpoints.needs import Entry

models = typer.Typer(
    help="Checkpoints and adapters of the catalog on this machine: list, fetch and verify them.", no_args_is_help=True
)

#: How wide the names of what an entry loads are.
WIDTH = 18

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME...", help="Entries of the catalog: see `farm models list`."),
]
AllOption = Annotated[bool, typer.Option("--all", help="All entries of the catalog.")]


@models.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """List what each entry of the catalog loads, where it is, and whether this machine has it complete.

    Asks nobody: what is said of the model hub's files is what the hub said when they were fetched.
    """
    with friendly_errors():
        from farm.checkpoints.needs import kind_of

        entries = [(entry, holdings) for entry, holdings in _chosen(None, everything=True)]
        if as_json:
            print_json([_document(entry, holding) for entry, holdings in entries for holding in holdings])
            return
        for entry, holdings in entries:
            say(f"{entry.name} ({kind_of(entry)})")
            for holding in holdings:
                mark, style = (
                    ("✓", "green") if holding.is_complete else ("-", None) if holding.is_usable else ("✗", "red")
                )
                output.print(f"  {mark}", style=style, end=" ")
                say(f"{holding.need.role:<{WIDTH}} {holding.need.where}  {_size(holding.size) or holding.missing}")
                if holding.size and holding.missing:
                    say(f"{'':<{WIDTH + 5}}{holding.missing}")


@models.command()
def pull(names: NamesArgument = None, everything: AllOption = False, as_json: JsonOption = False) -> None:
    """Fetch what entries need from the model hub into its cache (HF_HOME), and verify it.

    Only what diffusers reads is fetched: safetensors of the entry's variant, configurations, tokenizers. Whole files
    are kept when it breaks off; what is damaged is fetched again.

    Examples:

        farm models pull sdxl-1.0

        farm models pull sdxl-lightning lcm-lora-sdxl
    """
    with friendly_errors():
        from farm.checkpoints.fetching import fetch

        failures = 0
        documents = []
        done: dict[tuple[object, ...], Holding] = {}
        for entry, holdings in _chosen(names, everything=everything):
            for holding in holdings:
                need = holding.need
                where = (need.path, need.repository, need.layout, need.name, need.variant)
                try:
                    if where not in done:
                        done[where] = _require_local(holding) if need.repository is None else _fetched(fetch, holding)
                    documents.append(_document(entry, done[where]))
                except CheckpointError as error:
                    failures += 1
                    warn(f"error: {entry.name}: {error}", "red")
        print_json(documents, only_if=as_json)
        if not as_json:
            for document in documents:
                named = f"{document['entry']}: {document['role']} {document['where']}"
                say(f"{named}: {document['missing'] or 'complete'}, {_size(document['bytes'])}")
        if failures:
            raise typer.Exit(Exit.FAILED)


@models.command()
def verify(names: NamesArgument = None, everything: AllOption = False, as_json: JsonOption = False) -> None:
    """Read all files of entries that are on this machine, and name those that are damaged or missing.

    Files of the model hub must have the hashes that it stated when they were fetched; others must be whole safetensors.
    """
    with friendly_errors():
        from farm.checkpoints.hashes import find_damage

        documents = []
        with messages.status("reading") as status:
            for entry, holdings in _chosen(names, everything=everything):
                for holding in holdings:
                    damaged = [
                        {"file": str(one.file), "message": one.what}
                        for one in find_damage(holding, lambda file: status.update(f"reading {file.name}"))
                    ]
                    documents.append({**_document(entry, holding), "hashed": bool(holding.stated), "damaged": damaged})
        print_json(documents, only_if=as_json)
        bad = [document for document in documents if document["damaged"] or not document["usable"]]
        if not as_json:
            for document in documents:
                _tell_verified(document)
        if bad:
            raise typer.Exit(Exit.FAILED)


def _tell_verified(document: dict[str, Any]) -> None:
    named = f"{document['entry']}: {document['role']} {document['where']}"
    for one in document["damaged"]:
        warn(f"{named}: {one['file']} {one['message']}", "red")
    if not document["damaged"]:
        if not document["usable"]:
            warn(f"{named} is not complete: {document['missing']}", "red")
        elif document["complete"]:
            by = "its hashes are the hub's" if document["hashed"] else "its safetensors are whole; nobody states hashes"
            say(f"{named}: {by}")
        else:
            say(f"{named}: {document['missing']}")
    if document["damaged"] or not document["usable"]:
        remedy = (
            f"Run: farm models pull {document['entry']}"
            if document["repository"]
            else f"Copy it to {document['where']} again, complete."
        )
        warn(f"  {remedy}")


def _chosen(names: Sequence[str] | None, *, everything: bool) -> Iterator[tuple["Entry", list["Holding"]]]:
    """The entries of these names, or all, with what of them is here. Raises NotFoundError."""
    from farm.catalog import Catalog
    from farm.checkpoints.holdings import look
    from farm.checkpoints.needs import needs_of

    settings = get_settings()
    catalog = Catalog.load(settings.catalog, settings.models_directory)
    for entry in _entries(catalog, names or (), everything=everything):
        yield entry, [look(need) for need in needs_of(entry, catalog, settings.models_directory)]


def _entries(catalog: "Catalog", names: Sequence[str], *, everything: bool) -> list["Entry"]:
    from farm.checkpoints.needs import all_entries

    entries = list(all_entries(catalog))
    known = {entry.name for entry in entries}
    for name in names:
        if name not in known:
            raise NotFoundError(f"The catalog has no {name!r}; it holds {', '.join(sorted(known))}.")
    if not names and not everything:
        raise NotFoundError("Name entries of the catalog, or say --all; `farm models list` lists them.")
    return [entry for entry in entries if everything or entry.name in names]


def _require_local(holding: "Holding") -> "Holding":
    if not holding.is_usable:
        raise CheckpointError(
            f"its {holding.need.role} {holding.need.where} is to be on this machine, and cannot be fetched: "
            f"{holding.missing}. Copy it there, or correct its path in the catalog."
        )
    return holding


def _fetched(fetch: Any, holding: "Holding") -> "Holding":
    messages.print(f"{escape(holding.need.where)}", highlight=False)
    fetched: Holding = fetch(holding.need)
    return fetched


def _document(entry: "Entry", holding: "Holding") -> dict[str, Any]:
    from farm.checkpoints.needs import kind_of

    need = holding.need
    return {
        "entry": entry.name,
        "kind": kind_of(entry),
        "role": need.role,
        "where": need.where,
        "repository": need.repository,
        "variant": need.variant,
        "bytes": holding.size,
        "complete": holding.is_complete,
        "usable": holding.is_usable,
        "missing": holding.missing,
    }


def _size(number: int) -> str:
    if number == 0:
        return ""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
