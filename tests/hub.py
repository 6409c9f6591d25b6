"""A server that speaks the model hub's protocol as far as huggingface_hub's downloads do."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """Repositories, and what goes wrong on their way."""

    url: str
    repositories: dict[str, Path] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    """Files whose bytes are changed on their way."""
    broken: dict[str, int] = field(default_factory=dict)
    """Files during which the connection breaks off, and how often."""
    asked: list[str] = field(default_factory=list)
    """Files that were sent, with the place from which on if it was not the start."""

    def files(self, repository: str) -> list[dict[str, Any]]:
        root = self.repositories[repository]
        return [self._file(root, path) for path in sorted(root.rglob("*")) if path.is_file()]

    def _file(self, root: Path, path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        entry = {"type": "file", "path": path.relative_to(root).as_posix(), "size": len(data), "oid": blob}
        if path.suffix not in (".json", ".txt", ".md"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The server, for the time of the context."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                self.tell(
                    found[1],
                    lambda files: {
                        "id": found[1],
                        "sha": COMMIT,
                        "siblings": [{"rfilename": file["path"]} for file in files],
                    },
                )
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
                self.tell(found[1], lambda files: files)
            elif (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)) and found[1] in hub.repositories:
                self.send_file(found[1], found[2])
            else:
                self.refuse()

        def tell(self, repository: str, make: Any) -> None:
            if repository not in hub.repositories:
                self.refuse()
                return
            data = json.dumps(make(hub.files(repository))).encode()
            self.start(200, len(data), {"Content-Type": "application/json"})
            self.wfile.write(data)

        def send_file(self, repository: str, name: str) -> None:
            entry = next((file for file in hub.files(repository) if file["path"] == name), None)
            if entry is None:
                self.refuse("EntryNotFound")
                return
            etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            data = (hub.repositories[repository] / name).read_bytes()
            if name in hub.damaged:
                data = data[:-4] + bytes(byte ^ 0xFF for byte in data[-4:])
            wanted = self.headers.get("Range")
            first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            headers = {
                "X-Repo-Commit": COMMIT,
                "ETag": f'"{etag}"',
                "X-Linked-Size": str(len(data)),
                "Accept-Ranges": "bytes",
            }
            if wanted:
                headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.start(206 if wanted else 200, len(data) - first, headers)
            if self.command == "HEAD":
                return
            hub.asked.append(f"{name} from {first}" if first else name)
            if hub.broken.get(name, 0) > 0:
                hub.broken[name] -= 1
                self.wfile.write(data[first : first + (len(data) - first) // 2])
                self.close_connection = True
                return
            self.wfile.write(data[first:])

        def refuse(self, code: str = "RepoNotFound") -> None:
            self.start(404, 0, {"X-Error-Code": code, "X-Error-Message": "not found"})

        def start(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Tests have logs enough."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
