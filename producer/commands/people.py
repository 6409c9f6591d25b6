"""The operator's commands about people: ``farm user ...`` and ``farm link``."""

import sys
from typing import Annotated

import typer
from rich.table import Table

from farm.roles import Role
from producer.commands.terms import JsonOption, friendly_errors, output, print_json, say
from producer.desk import open_desk

users = typer.Typer(
    help="Make and change users: in the database that FARM_DATABASE_URL names, else in the running farm.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
StdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, and do not ask.")
]

NOTHING = "Nothing was changed."


@users.command()
def add(
    name: NameArgument,
    role: Annotated[
        Role, typer.Option(help="viewer looks, submitter submits, operator steers all jobs, admin makes users.")
    ],
    password_stdin: StdinOption = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Without one: the user enters by a link of `farm link NAME`.")
    ] = False,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing when there is a user of this name.")
    ] = False,
) -> None:
    """Make a user; asks for the password.

    Examples:

        farm user add ana --role admin

        printf %s "$PASSWORD" | farm user add ana --role admin --password-stdin --if-missing
    """
    with friendly_errors(nothing=NOTHING), open_desk() as desk:
        if if_missing and any(user["name"] == name for user in desk.users()):
            say(f"There is a user {name} already; nothing was changed.")
            return
        desk.add(name, role, None if no_password else _password(from_stdin=password_stdin))
        say(f"{name} is {role} now.")


@users.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """List all users."""
    with friendly_errors(), open_desk() as desk:
        found = desk.users()
        if as_json:
            print_json(found)
            return
        table = Table("Name", "Role", "Password", "Locked out", "Made")
        for user in found:
            table.add_row(
                user["name"].replace("[", r"\["),
                user["role"],
                "yes" if user["has_password"] else "no",
                "yes" if user["disabled"] else "no",
                user["created_at"],
            )
        output.print(table)


@users.command()
def password(name: NameArgument, password_stdin: StdinOption = False) -> None:
    """Set a user's password; logs them out everywhere."""
    with friendly_errors(nothing=NOTHING), open_desk() as desk:
        desk.change(name, password=_password(from_stdin=password_stdin))
        say(f"The password of {name} is set, and {name} is logged out everywhere.")


@users.command()
def role(name: NameArgument, role: Annotated[Role, typer.Argument(help="The new role.")]) -> None:
    """Give a user another role."""
    with friendly_errors(nothing=NOTHING), open_desk() as desk:
        desk.change(name, role=role.value)
        say(f"{name} is {role} now.")


@users.command()
def disable(name: NameArgument) -> None:
    """Lock a user out, at once and everywhere. What they submitted stays."""
    with friendly_errors(nothing=NOTHING), open_desk() as desk:
        desk.change(name, disabled=True)
        say(f"{name} is locked out.")


@users.command()
def enable(name: NameArgument) -> None:
    """Let a user in again."""
    with friendly_errors(nothing=NOTHING), open_desk() as desk:
        desk.change(name, disabled=False)
        say(f"{name} may log in again.")


def link(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Whom it logs in; others than oneself take an administrator.")
    ] = None,
) -> None:
    """Print a new link that logs a browser in once, within an hour."""
    with friendly_errors(nothing=NOTHING), open_desk() as desk:
        sys.stdout.write(desk.link(name) + "\n")


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    given: str = typer.prompt("Password", hide_input=True, confirmation_prompt="Password, again")
    return given
