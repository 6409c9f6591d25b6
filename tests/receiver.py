"""An HTTP server on the loopback address, for what the farm asks of others."""

import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Received:
    """A request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What came, and what is to be answered."""

    url: str
    answer: Callable[[BaseHTTPRequestHandler], None]
    received: list[Received] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, count: int, seconds: float = 240) -> list[Received]:
        """The requests, once there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= count, seconds), self.received
            return list(self.received)


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers with nothing but this status."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@contextmanager
def receiver(
    answer: Callable[[BaseHTTPRequestHandler], None] = status(204), tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with found.changed:
                found.received.append(Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                found.changed.notify_all()
            try:
                found.answer(self)
            except OSError:
                # Whoever asked hung up.
                self.close_connection = True

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            # Whoever asked did not like our certificate.
            if not isinstance(sys.exception(), OSError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found = Receiver(f"http://127.0.0.1:{server.server_port}", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
