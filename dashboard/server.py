"""Runs the dashboard behind waitress."""

import logging
import sys

from waitress.server import create_server

from dashboard.app import create_app
from farm.errors import ConfigurationError
from farm.keeper import exit_on_signal
from farm.settings import Settings

logger = logging.getLogger(__name__)

THREADS = 8


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; raises ConfigurationError when the port is taken."""
    app = create_app(settings)
    try:
        server = create_server(app, host=settings.host, port=settings.port, threads=THREADS, ident="sdxl-farm")
    except OSError as error:
        raise ConfigurationError(
            f"The dashboard cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another port."
        ) from error
    sys.stdout.write(f"http://{settings.host}:{server.effective_port}\n")
    sys.stdout.flush()
    logger.info("the dashboard listens on http://%s:%s", settings.host, server.effective_port)
    with exit_on_signal():
        server.run()
    server.close()
