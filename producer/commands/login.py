"""``farm login`` and ``farm logout``: which farm this user's commands talk to, and who they are there."""

import socket
import sys
from typing import Annotated

import httpx
import typer

from farm.errors import ConfigurationError, FarmError
from farm.record import find_farm, forget_farm, record_farm, record_token
from producer.client.errors import FarmUnreachableError, NotLoggedInError
from producer.commands.terms import JsonOption, friendly_errors, print_json, say

TIMEOUT_SECONDS = 30

UrlArgument = Annotated[str | None, typer.Argument(metavar="[URL]", help="Address of the farm.")]


def login(
    url: UrlArgument = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Log in with this user's password, and make a token.")
    ] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read an API token from standard input, and do not ask.")
    ] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="With --name: read the password from standard input.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remember a farm and a token for it: later commands, and the Python client, go there.

    The token is one of the page Account, or is made there with your password. It is kept in a file that only you may
    read. FARM_URL and FARM_TOKEN override it.

    Examples:

        farm login https://farm.example.org

        farm login https://farm.example.org --name ana

        printf %s "$TOKEN" | farm login https://farm.example.org --token-stdin
    """
    with friendly_errors(nothing="You are not logged in."):
        address = _address(url)
        if name is not None:
            password = _from_stdin() if password_stdin else typer.prompt("Password", hide_input=True)
            token = _make_token(address, name, password)
        elif token_stdin:
            token = _from_stdin()
        else:
            token = typer.prompt(f"API token (make one on {address}/account)", hide_input=True)
        who = _who(address, token.strip())
        record_token(address, token.strip())
        record_farm(address)
        print_json({"url": address, "name": who["name"], "role": who["role"]}, only_if=as_json)
        if not as_json:
            say(f"Logged in to {address} as {who['name']} ({who['role']}).")


def logout(url: UrlArgument = None, as_json: JsonOption = False) -> None:
    """Forget a farm's token. To make it worthless everywhere, revoke it on the page Account."""
    with friendly_errors():
        address = _address(url)
        forget_farm(address)
        print_json({"url": address}, only_if=as_json)
        if not as_json:
            say(f"The token for {address} is forgotten.")


def _address(url: str | None) -> str:
    address = (url or find_farm()).strip().rstrip("/")
    if "://" not in address:
        address = f"https://{address}"
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(f"{address!r} is no address of a farm; write one such as https://farm.example.org")
    return address


def _who(address: str, token: str) -> dict[str, str]:
    """Whose token it is."""
    with _client(address) as http:
        answer = _send(http, "GET", "/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        message = "The farm does not know this token, or it has ended. Make another one on the page Account."
        raise NotLoggedInError(answer.status_code, message)
    if answer.is_error or "json" not in answer.headers.get("content-type", ""):
        raise FarmError(f"{address} answers, but not as a farm does (HTTP {answer.status_code}).")
    who: dict[str, str] = answer.json()
    return who


def _make_token(address: str, name: str, password: str) -> str:
    """Log in as a browser does, and make a token for this machine."""
    with _client(address) as http:
        entered = _send(http, "POST", "/login", data={"name": name, "password": password})
        if entered.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise FarmError(f"Too many wrong passwords; try again in {entered.headers.get('Retry-After', '300')} s.")
        if not entered.is_redirect:
            raise NotLoggedInError(entered.status_code, "This name and password do not match.")
        made = _send(http, "POST", "/api/v1/tokens", json={"name": f"farm login on {socket.gethostname()}"[:60]})
        _send(http, "POST", "/logout")
    if made.is_error:
        raise FarmError(f"The farm made no token (HTTP {made.status_code}): {made.text[:200]}")
    return str(made.json()["token"])


def _client(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=TIMEOUT_SECONDS)


def _send(http: httpx.Client, method: str, path: str, **arguments: object) -> httpx.Response:
    try:
        return http.request(method, path, **arguments)  # type: ignore[arg-type]
    except httpx.TransportError as error:
        raise FarmUnreachableError(f"No farm answers at {http.base_url} ({error}).") from error


def _from_stdin() -> str:
    return sys.stdin.read().strip("\r\n")
