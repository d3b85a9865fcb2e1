"""Small server that speaks as much of the Hub's HTTP as uploading and downloading a model asks."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_forthetests"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Server with its repositories: name -> file -> content."""

    repositories: dict[str, dict[str, bytes]]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            name = self._create(json.loads(body))
            self._answer(200, {"url": f"{self.server.endpoint}/{name}", "name": name})
        elif self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]
            self._answer(200, {"files": modes})
        elif self.path.endswith("/commit/main"):
            self._commit(self.path.split("/", 3)[3].removesuffix("/commit/main"), body)
        else:  # the check of the card's metadata
            self._answer(200, {"errors": [], "warnings": []})

    def _create(self, request: dict[str, Any]) -> str:
        name = "/".join(filter(None, (request.get("organization"), request["name"])))
        self.server.repositories.setdefault(name, {})
        return name

    def _commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.repositories[name][line["value"]["path"]] = content
        address = f"{self.server.endpoint}/{name}/commit/{COMMIT}"
        answer = {"success": True, "commitUrl": address, "commitOid": COMMIT}
        self._answer(200, {**answer, "hookOutput": "", "pullRequestUrl": None})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        files = self.server.repositories.get(name)
        if files is None:
            self._answer(
                404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"}
            )
        elif is_api and "tree" in parts:
            self._answer(200, [self._entry(path, files[path]) for path in files])
        elif is_api:
            siblings = [{"rfilename": path} for path in files]
            self._answer(200, {"id": name, "sha": COMMIT, "siblings": siblings, "tags": []})
        else:  # /NAME/resolve/REVISION/FILE
            self._file(files["/".join(parts[4:])])

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(content), "oid": _digest(content)}

    def _file(self, content: bytes) -> None:
        self._send(200, content, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT})

    def _answer(self, code: int, answer: Any, **headers: str) -> None:
        self._send(
            code, json.dumps(answer).encode(), {"Content-Type": "application/json", **headers}
        )

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer(("127.0.0.1", 0), _Handler)
    server.repositories = {}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
