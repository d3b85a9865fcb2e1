"""A real HTTP server on this machine, in place of hosts that tests must not depend on."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

COMMIT = "a" * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves files by path, remembers requests; breaks off the first ones half-way if told to."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.requests: list[str] = []
        self.broken: set[str] = set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        content = self.server.files.get(path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        half = path in self.server.broken
        self.server.broken.discard(path)
        if body:
            self.wfile.write(content[: len(content) // 2] if half else content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    with Server(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def hub(repository: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """What the Hugging Face Hub answers about a repository, by path."""
    info = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    tree = [
        {"type": "file", "path": name, "size": len(content), "oid": "b" * 40}
        for name, content in files.items()
    ]
    return {
        f"/api/models/{repository}/revision/main": json.dumps(info).encode(),
        f"/api/models/{repository}/tree/{COMMIT}": json.dumps(tree).encode(),
        **{f"/{repository}/resolve/{COMMIT}/{name}": c for name, c in files.items()},
    }
