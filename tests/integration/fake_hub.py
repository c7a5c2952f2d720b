"""A small server on this machine that speaks what huggingface_hub needs to make a repository, commit to it and download
from it.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_good"
OWNER = "me"


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Attributes:
        repositories: name → {"visibility": …, "files": {path: bytes}}.
        fetched: paths that were downloaded.
    """

    address: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    commits: int = 0
    fail_commits: bool = False

    def sha(self, name: str) -> str:
        files = self.repositories[name]["files"]
        return hashlib.sha1(b"".join(path.encode() + files[path] for path in sorted(files))).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.path == "/api/validate-yaml":
            wrong = "license: nonsense" in json.loads(body)["content"]
            errors = [{"message": '"license" must be one of [apache-2.0, ...]'}] if wrong else []
            return self._json({"errors": errors, "warnings": []}, 400 if wrong else 200)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._json(
                {"transfer": "basic", "objects": [self._lfs_action(entry) for entry in json.loads(body)["objects"]]}
            )
        name, action = "/".join(parts[2:4]), parts[4]
        if action == "preupload":
            files = [
                {
                    "path": entry["path"],
                    "uploadMode": "lfs" if entry["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for entry in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        assert action == "commit", self.path
        if self.state.fail_commits:
            return self._json({"error": "storage is down"}, 500)
        return self._commit(name, [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        self.state.objects[self.path.removeprefix("/lfs/")] = self._body()
        self._json({})

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            name = "/".join(parts[2:4])
            if name not in self.state.repositories:
                return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            files = self.state.repositories[name]["files"]
            if parts[4:5] == ["tree"]:
                return self._json(
                    [
                        {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                        for path, data in files.items()
                    ]
                )
            return self._json(
                {"id": name, "sha": self.state.sha(name), "siblings": [{"rfilename": path} for path in files]}
            )
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        data = self.state.repositories[name]["files"][path]
        if self.command == "GET":
            self.state.fetched.append(path)
        headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": self.state.sha(name)}
        return self._send(data, 200, "application/octet-stream", headers)

    do_HEAD = do_GET

    def _create(self, asked: dict[str, Any]) -> None:
        if asked["organization"] != OWNER:
            return self._json(
                {"error": f"You don't have the rights to create a model under {asked['organization']}"}, 403
            )
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.state.repositories:
            return self._json(
                {"error": "You already created this model repo", "url": f"{self.state.address}/{name}"}, 409
            )
        older = "private" if asked.get("private") else "public"  # as clients asked before there were more kinds
        self.state.repositories[name] = {"visibility": asked.get("visibility", older), "files": {}}
        return self._json({"url": f"{self.state.address}/{name}"})

    def _lfs_action(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "actions": {"upload": {"href": f"{self.state.address}/lfs/{entry['oid']}"}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.state.repositories[name]["files"]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.state.commits += 1
        self._json({"commitUrl": f"{self.state.address}/{name}/commit/1", "commitOid": self.state.sha(name)})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, "application/json", headers or {})

    def _send(self, data: bytes, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
