"""``farm token``: API tokens for programs."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from farm.limits import Scope
from producer.client.sync import Farm
from producer.commands.terms import JsonOption, friendly_errors, moment, output, print_json, say, warn

tokens = typer.Typer(help="Make, list and revoke API tokens of your own.", no_args_is_help=True)

NOTHING = "Nothing was changed."


@tokens.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """List your tokens: what they are for, how they begin, when they were last used."""
    with friendly_errors(nothing=NOTHING), Farm() as farm:
        found = farm.request("GET", "/api/v1/tokens").json()["tokens"]
        if as_json:
            print_json(found)
            return
        table = Table("Token", "For", "Begins", "Scopes", "Last used", "Ends")
        for token in found:
            scopes = ", ".join(token["scopes"]) if token["scopes"] else "all"
            used, ends = moment(token["last_used_at"]) or "never", moment(token["expires_at"]) or "never"
            table.add_row(str(token["id"]), escape(token["name"]), f"{token['hint']}...", scopes, used, ends)
        output.print(table)


@tokens.command()
def make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; may be given several times.  [default: all you may]")
    ] = None,
    days: Annotated[int | None, typer.Option(help="How long it lives.  [default: for ever]")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Requests a minute.")] = None,
    images_per_day: Annotated[int | None, typer.Option(help="Images submitted a day (UTC).")] = None,
    concurrent_images: Annotated[int | None, typer.Option(help="Images submitted and not finished.")] = None,
    largest_job: Annotated[int | None, typer.Option(help="Images of one job.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token, and print it: it is shown this once.

    Example:

        farm token make "nightly script" --scope read --scope submit --images-per-day 5000
    """
    body = {
        "name": name,
        "scopes": [str(one) for one in scope] if scope else None,
        "days": days,
        "requests_per_minute": requests_per_minute,
        "images_per_day": images_per_day,
        "concurrent_images": concurrent_images,
        "largest_job": largest_job,
    }
    with friendly_errors(nothing=NOTHING), Farm() as farm:
        given = {field: value for field, value in body.items() if value is not None}
        made = farm.request("POST", "/api/v1/tokens", json=given).json()
        print_json(made, only_if=as_json)
        if not as_json:
            warn("Keep it: it is not shown again.")
            say(made["token"])


@tokens.command()
def revoke(
    token_id: Annotated[int, typer.Argument(metavar="TOKEN", help="Its number, as `farm token list` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """Make a token worthless: programs that show it are refused from now on."""
    with friendly_errors(nothing=NOTHING), Farm() as farm:
        farm.request("DELETE", f"/api/v1/tokens/{token_id}")
        print_json({"id": token_id, "revoked": True}, only_if=as_json)
        if not as_json:
            say(f"Token {token_id} is revoked.")
