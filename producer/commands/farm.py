"""Commands about the farm itself: what it can render, who renders, what waits, and the lists of words."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from producer.client.sync import Farm
from producer.commands.terms import JsonOption, duration, friendly_errors, output, plain, print_json, say


def pipelines(as_json: JsonOption = False) -> None:
    """List the catalog's pipelines, with limits and defaults."""
    with friendly_errors(), Farm() as farm:
        found = farm.pipelines()
        if as_json:
            print_json(found)
            return
        table = Table("Pipeline", "Refiner", "Largest", "Steps", "Guidance", "Batch")
        for entry in found:
            defaults = entry["defaults"]
            table.add_row(
                escape(entry["name"]) + (" (default)" if entry["default"] else ""),
                "yes" if entry["has_refiner"] else "no",
                f"{entry['max_width']}x{entry['max_height']}",
                f"{defaults.get('num_inference_steps', '')} (at most {entry['max_num_inference_steps']})",
                str(defaults.get("guidance_scale", "")),
                str(entry["batch_size"]),
            )
        output.print(table)


def workers(as_json: JsonOption = False) -> None:
    """List the workers of the last hour, and what they do."""
    with friendly_errors(), Farm() as farm:
        found = farm.workers()
        if as_json:
            print_json(found)
            return
        table = Table("Worker", "Device", "Pipeline", "Stages", "State", "Pictures")
        for worker in found:
            table.add_row(
                escape(worker["id"]),
                escape(worker["device_name"]),
                escape(worker["pipeline"]),
                ", ".join(worker["stages"]),
                worker["state"],
                str(worker["images_completed"]),
            )
        output.print(table)


def queues(as_json: JsonOption = False) -> None:
    """Show what waits for which workers, how long it will take, and what holds it up."""
    with friendly_errors(), Farm() as farm:
        found = farm.queues()
        if as_json:
            print_json(found)
            return
        table = Table("Queue", "Batches waiting", "Running", "Workers", "Empty in")
        for queue in found:
            row = (queue["waiting"], queue["running"], queue["workers"], duration(queue["seconds_to_empty"]))
            table.add_row(escape(queue["name"]), *map(str, row))
        output.print(table)
        for queue in found:
            for hint in queue["hints"]:
                say(f"{queue['name']}: {hint if isinstance(hint, str) else hint['text']}")


def shares(
    weights: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OWNER=WEIGHT", help="Give an owner a weight; may be given several times."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how much owners get beside each other while several have work, or set it.

    With a weight of 3 somebody gets three times as much as one with 1, which is everybody's unless it is set. For
    administrators.
    """
    with friendly_errors(nothing="Nothing was changed."), Farm() as farm:
        wanted = [_weight(text) for text in weights or []]
        for owner, weight in wanted:
            farm.set_share(owner, weight)
        found = farm.shares()
        if as_json:
            print_json(found)
            return
        table = Table("Owner", "Weight")
        for share in found:
            table.add_row(escape(plain(share["owner"])), f"{share['weight']:g}")
        table.add_row("everybody else" if found else "everybody", "1")
        output.print(table)


def _weight(text: str) -> tuple[str, float]:
    owner, equals, weight = text.rpartition("=")
    try:
        if not owner or not equals:
            raise ValueError
        return owner, float(weight)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not OWNER=WEIGHT, such as ana=3", param_hint="--set") from None


def whoami(as_json: JsonOption = False) -> None:
    """Show which farm commands talk to, who you are there, and what your token may do."""
    with friendly_errors(), Farm() as farm:
        who = farm.me()
        print_json({"url": farm.url, **who}, only_if=as_json)
        if as_json:
            return
        say(f"{plain(who['name'])} ({who['role']}) on {farm.url}")
        token = who.get("token") or {}
        for name in ("requests_per_minute", "images_per_day", "concurrent_images", "largest_job"):
            if token.get(name) is not None:
                say(f"{name.replace('_', ' ')}: {token[name]}")


def words(
    name: Annotated[str | None, typer.Argument(help="Name of a list: prompts write it as __name__.")] = None,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Text, one word or phrase a line.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the list.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the lists of words for prompt templates, or store or remove one.

    Examples:

        farm words

        farm words animal animals.txt

        farm submit --prompt "a {red|blue} __animal__" --templates all
    """
    with friendly_errors(nothing="Nothing was changed."), Farm() as farm:
        if delete and name is not None:
            farm.delete_words(name)
        elif name is not None and file is not None:
            farm.save_words(name, file.read_text(encoding="utf-8-sig"))
        lists = {key: found for key, found in farm.words().items() if name in (None, key)}
        if not as_json:
            for key, found in lists.items():
                shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
                say(f"{key}: {len(found)} ({shown})")
        print_json({"word_lists": lists}, only_if=as_json)
