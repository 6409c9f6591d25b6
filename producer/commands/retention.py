"""``farm retention ...``: how long pictures are kept, and what is removed."""

from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from farm.errors import InvalidSubmissionError, Problem
from producer.client.sync import Farm
from producer.commands.terms import JsonOption, friendly_errors, messages, output, plain, print_json, read_days, say

retention = typer.Typer(help="How long pictures are kept: policies, and what they remove.", no_args_is_help=True)

OwnerArgument = Annotated[
    str, typer.Argument(metavar="OWNER", help="Whose pictures; '*' is everybody without a policy of their own.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")]

NOTHING = "Nothing was changed."
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
#: Listing a large store takes its time.
_PATIENCE_SECONDS = 3600.0
_REASONS = {
    "job": "the job's own days",
    "owner": "the owner's days",
    "everybody": "everybody's days",
    "max_bytes": "more room than they may take",
    "unused": "inputs that no job names",
}


@retention.command()
def show(as_json: JsonOption = False) -> None:
    """List the policies. Owners without one have that for '*'; without that, all is kept for ever."""
    with friendly_errors(), Farm() as farm:
        policies = farm.request("GET", "/api/v1/retention").json()["policies"]
        if as_json:
            print_json(policies)
            return
        if not policies:
            say("There are no policies: but for what jobs say themselves, all is kept for ever.")
            return
        table = Table("Owner", "Days", "Starred stay", "Room")
        for policy in policies:
            days, room = policy["keep_days"], policy["max_bytes"]
            table.add_row(
                escape(plain(policy["owner"])),
                "for ever" if days is None else str(days),
                "yes" if policy["keep_starred"] else "no",
                "" if room is None else size(room),
            )
        output.print(table)


@retention.command("set")
def set_policy(
    owner: OwnerArgument,
    keep_days: Annotated[
        str, typer.Option(metavar="DAYS", help="Days from the end of a job; none: for ever.")
    ] = "none",
    keep_starred: Annotated[bool, typer.Option(help="Whether starred pictures stay in spite of that.")] = True,
    max_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Room for all their pictures: 500M, 20G.  [default: no limit]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Set an owner's policy, in place of the last; what jobs say goes before it.

    Examples:

        farm retention set '*' --keep-days 90

        farm retention set ana --keep-days none --max-bytes 200G
    """
    days = read_days(keep_days)
    with friendly_errors(nothing=NOTHING), Farm() as farm:
        body = {
            "keep_days": None if days == "none" else days,
            "keep_starred": keep_starred,
            "max_bytes": None if max_bytes is None else read_size(max_bytes),
        }
        policy = farm.request("PUT", _path(owner), json=body).json()
        print_json(policy, only_if=as_json)
        if not as_json:
            say(f"Pictures of {_whose(owner)} are kept {_told(policy)}.")


@retention.command()
def remove(owner: OwnerArgument, as_json: JsonOption = False) -> None:
    """Remove an owner's policy: that for '*' counts again."""
    with friendly_errors(nothing=NOTHING), Farm() as farm:
        farm.request("DELETE", _path(owner))
        print_json({"owner": owner, "removed": True}, only_if=as_json)
        if not as_json:
            say(f"The policy of {_whose(owner)} is removed.")


@retention.command()
def run(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Remove what is to go now; the producer does so by itself within minutes. There is no way back."""
    with friendly_errors(nothing="Nothing was removed."), Farm() as farm:
        sums: dict[tuple[str, str], dict[str, Any]] = {}
        finished = False
        while not finished:
            answer = farm.request("POST", "/api/v1/retention/run", json={"dry_run": dry_run}).json()
            finished = answer["finished"]
            for one in answer["removals"]:
                known = sums.setdefault((one["owner"], one["reason"]), dict.fromkeys(_COUNTS, 0))
                sums[one["owner"], one["reason"]] = one | {name: known[name] + one[name] for name in _COUNTS}
        removals = [sums[key] for key in sorted(sums)]
        if as_json:
            print_json({"dry_run": dry_run, "removals": removals})
            return
        if not removals:
            say("There is nothing to remove.")
            return
        table = Table("Owner", "Because of", "Jobs", "Pictures", "Inputs", "Size")
        for one in removals:
            counts = [str(one[name]) for name in ("jobs", "pictures", "inputs")]
            table.add_row(escape(plain(one["owner"])), _REASONS[one["reason"]], *counts, size(one["bytes"]))
        output.print(table)
        say("Nothing was removed: this is what would go." if dry_run else "This was removed.")


@retention.command()
def orphans(
    dry_run: DryRunOption = False,
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Mark missing pictures as removed; `farm retry --removed` renders them."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare store and database: remove objects that no row names, and name pictures that are missing.

    For operators, on a machine with FARM_DATABASE_URL and FARM_STORE_URL, or beside a farm that `farm up` runs. It
    reads through the whole store. Objects of the last day are left alone, and so is what is not of the farm's kinds.
    """
    with friendly_errors(nothing="Nothing was removed."):
        from farm.database import open_database
        from farm.doctor.services import locate_services
        from farm.settings import get_settings
        from farm.storage import open_store
        from producer.orphans import doom_orphans, find_missing, find_orphans, mark_removed

        settings, _ = locate_services(get_settings())
        store, engine = open_store(settings), open_database(settings)
        objects, total, gone, marked = 0, 0, [], 0
        try:
            with messages.status("reading the store") as status:
                for some in find_orphans(engine, store):
                    objects, total = objects + len(some), total + sum(one.size for one in some)
                    status.update(f"reading the store: {objects} objects that no row names")
                    if not dry_run:
                        doom_orphans(engine, some)
                for missing in find_missing(engine, store):
                    gone.append(missing)
                    if mend and not dry_run:
                        marked += mark_removed(engine, missing)
        finally:
            engine.dispose()
        pictures = sum(len(one.indices) for one in gone)
        if as_json:
            told = [{"job": one.job_id, "images": list(one.indices)} for one in gone]
            print_json({"dry_run": dry_run, "objects": objects, "bytes": total, "missing": told, "marked": marked})
            return
        said = "would be removed" if dry_run else "are removed within a minute"
        say(f"{objects} objects ({size(total)}) that no row names {said}." if objects else "Every object has its row.")
        for one in gone:
            say(f"Job {one.job_id}: {len(one.indices)} pictures are not in the store, the first is {one.indices[0]}.")
        if marked:
            say(f"{marked} are marked as removed; render them again with: farm retry --removed JOB")
        elif pictures:
            say("To have them rendered again: farm retention orphans --mend, then farm retry --removed JOB")
        else:
            say("Every picture is in the store.")


_COUNTS = ("jobs", "pictures", "inputs", "bytes")


def size(count: int) -> str:
    """Bytes for people: ``1.5 GB``."""
    number = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def read_size(text: str) -> int:
    """Bytes as people write them: ``500M``, ``20 GB``. Raises InvalidSubmissionError."""
    written = text.replace(" ", "").lower().removesuffix("bytes").removesuffix("b")
    number, unit = (written[:-1], written[-1:]) if written[-1:] in _UNITS and written[-1:] else (written, "")
    try:
        return round(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        message = "is no size; write bytes, or a number with k, M, G or T: 500M, 20G"
        raise InvalidSubmissionError([Problem("max_bytes", f"{text!r} {message}")]) from None


def _path(owner: str) -> str:
    return f"/api/v1/retention/policies/{quote(owner, safe='')}"


def _whose(owner: str) -> str:
    return "everybody who has no policy" if owner == "*" else plain(owner)


def _told(policy: dict[str, Any]) -> str:
    days, room = policy["keep_days"], policy["max_bytes"]
    told = "for ever" if days is None else f"for {days} {'day' if days == 1 else 'days'}"
    if days is not None and policy["keep_starred"]:
        told += " (starred ones for ever)"
    return told if room is None else f"{told}, and take at most {size(room)}"
