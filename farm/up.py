"""``farm up``: all parts of the farm in the foreground of one machine."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from farm import embedded, people
from farm.database import open_database
from farm.errors import ConfigurationError
from farm.keeper import Child, Keeper, stop_on_signal
from farm.record import forget_farm, record_farm, record_token
from farm.settings import Settings

READY_SECONDS = 60
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - to be told apart, not to be listened on
POLL_SECONDS = 0.1


#: Name of the API token that each start makes anew for the user's own programs.
TOKEN_NAME = "farm up"  # noqa: S105


def run_up(settings: Settings, devices: str, on_ready: Callable[[str, str, Path], None], stage: str = "both") -> None:
    """Start services (unless configured), migrations, producer, worker and dashboard; return when stopped.

    ``on_ready`` is called with the dashboard's address, a link that logs its reader in once, and the log directory as
    soon as the dashboard answers. Raises ConfigurationError when a part cannot start.
    """
    port = settings.port or embedded.free_port(settings.host)
    _require_free(settings.host, port)
    with ExitStack() as services:
        data = settings.data.absolute()
        logs = data / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        # Who listens everywhere is reached here.
        url = f"http://{'127.0.0.1' if settings.host in EVERYWHERE else settings.host}:{port}"
        environment = {
            "FARM_DATA": str(data),
            "FARM_HOST": settings.host,
            "FARM_PORT": str(port),
            "FARM_PIPELINE": settings.pipeline,
            "FARM_DATABASE_URL": settings.database_url or services.enter_context(embedded.postgres(data / "postgres")),
            "FARM_BROKER_URL": settings.broker_url or services.enter_context(embedded.valkey(data / "valkey", port)),
            "FARM_STORE_URL": settings.effective_store_url,
            "PYTHONUNBUFFERED": "1",
        }
        _migrate(environment)
        token, link = _let_in(settings, environment["FARM_DATABASE_URL"])
        record_token(url, token)
        parts = {"producer": [], "worker": ["--devices", devices, "--stage", stage], "dashboard": []}
        keeper = Keeper(
            [
                Child(name, farm_command(name, *options), environment, logs / f"{name}.log")
                for name, options in parts.items()
            ]
        )
        with stop_on_signal(keeper):
            watcher = threading.Thread(
                target=_announce,
                args=(url, logs, lambda: on_ready(url, f"{url}/enter/{link}", logs)),
                daemon=True,
            )
            watcher.start()
            try:
                keeper.run()
            finally:
                forget_farm(url)


def farm_command(*arguments: str) -> list[str]:
    """The command line that runs ``farm`` with this very interpreter."""
    return [sys.executable, "-m", "farm.cli", *arguments]


def _migrate(environment: dict[str, str]) -> None:
    result = subprocess.run(
        farm_command("migrate"), env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise ConfigurationError(f"The database could not be migrated:\n{result.stderr.strip()}")


def _let_in(settings: Settings, database_url: str) -> tuple[str, str]:
    """An API token and the secret of a one-time link, for whoever starts the farm."""
    engine = open_database(Settings(database_url=database_url))
    try:
        people.require_users(engine, settings.host)
        user = people.local_user(engine)
        return people.renew_named_token(engine, user.user_id, TOKEN_NAME), people.make_link(engine, user.user_id)
    finally:
        engine.dispose()


def _announce(url: str, logs: Path, announce: Callable[[], None]) -> None:
    """Wait until the dashboard answers, then record and announce its address."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if _answers(url):
            record_farm(url)
            announce()
            return
        time.sleep(POLL_SECONDS)
    sys.stderr.write(f"The dashboard does not answer on {url}; {logs}/dashboard.log says why.\n")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.TransportError:
        # Nobody listens yet.
        return False


def _require_free(host: str, port: int) -> None:
    try:
        # As the dashboard will do it; a port whose last connections are still closing counts as free.
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigurationError(
            f"The dashboard cannot listen on {host}:{port} ({error.strerror}); choose another port with --port."
        ) from error
