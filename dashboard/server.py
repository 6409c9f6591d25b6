"""Runs the dashboard behind waitress."""

import logging
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any, cast

from flask import Flask
from waitress.server import create_server

from dashboard.app import create_app
from dashboard.context import EXTENSION, Context
from dashboard.live import stop_streams
from farm import people
from farm.errors import ConfigurationError
from farm.keeper import exit_on_signal
from farm.settings import Settings

logger = logging.getLogger(__name__)

#: Most of them wait: for events to send (``live.MAX_STREAMS``), for pictures (``MAX_WAITING`` of compatible.rendering),
#: for browsers that read slowly. What these leave is for pages.
THREADS = 120


def _print_address(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def serve(settings: Settings, on_listening: Callable[[str], None] = _print_address) -> None:
    """Serve until SIGTERM or Ctrl-C; raises ConfigurationError when the port is taken.

    ``on_listening`` is called with the address once connections are accepted; by default it is printed.
    """
    app = create_app(settings)
    engine = cast("Context", app.extensions[EXTENSION]).engine
    with ExitStack() as leaving:
        leaving.callback(engine.dispose)
        people.require_users(engine, settings.host)
        listener = _listen(settings.host, settings.port)
        server = leaving.enter_context(closing(_server(app, listener, settings)))
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
        leaving.enter_context(exit_on_signal(stop_streams))
        on_listening(url)
        if on_listening is _print_address and not people.somebody_has_a_password(engine):
            _print_address(f"{url}/enter/{people.make_link(engine, people.local_user(engine).user_id)}")
        logger.info("the dashboard listens on %s", url)
        server.run()


def _server(app: Flask, listener: socket.socket, settings: Settings) -> Any:
    return create_server(
        app,
        sockets=[listener],
        threads=THREADS,
        ident="sdxl-farm",
        # Lets a stream of events notice that its page was closed.
        channel_request_lookahead=1,
        # Otherwise what a proxy says of its visitors never reaches the application.
        clear_untrusted_proxy_headers=not settings.trusted_proxies,
        # A body is read before the application sees the request. Up to twice what is accepted it is answered with
        # the reason; beyond that the server itself ends the connection, before disks fill up.
        max_request_body_size=2 * settings.max_upload_mib * 2**20,
    )


def _listen(host: str, port: int) -> socket.socket:
    """One listening socket, also for a name with several addresses: with port 0 each would get a port of its own."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"The dashboard cannot listen on {host}:{port} ({error.strerror}); choose another address or port."
        ) from error
