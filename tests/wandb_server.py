"""A W&B server small enough to read: as much of its HTTP interface as the client asks for, kept in memory.

The client's answers are made by operation name; an operation that is not known here is refused, as a GraphQL server
does.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API_KEY = "k" * 40
ENTITY = "tester"


@dataclass
class StoredRun:
    """What the server knows of a run, after any number of clients."""

    config: dict[str, Any] = field(default_factory=dict)
    upserts: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    preempting: int = 0

    def last(self, name: str) -> Any:
        """A field of the last upsert that had it."""
        return next((entry[name] for entry in reversed(self.upserts) if entry.get(name) is not None), None)


@dataclass
class StoredArtifact:
    """An artifact version."""

    name: str
    type: str
    run: str
    aliases: list[str]
    metadata: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False
    used_by: list[str] = field(default_factory=list)


class WandbServer:
    """Runs by id, artifacts by number, alerts in order."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, StoredArtifact] = {}
        self.alerts: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        self.sweep: dict[str, Any] = {}
        self.trials: list[
            dict[str, Any]
        ] = []  # parameters that agents of the sweep are told to try, one after the other
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self.url = ""
        self._lock = threading.Lock()

    def graphql(self, operation: str, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """The `data` of the answer to one operation.

        Raises:
            KeyError: no such operation.
        """
        values = values.get("input", values)
        with self._lock:
            answers = {
                "Viewer": lambda: {"viewer": _VIEWER},
                "GetDefaultEntity": lambda: {"viewer": _VIEWER},
                "UpsertView2": lambda: self._upsert_view(values),
                "UpsertSweep": lambda: self._upsert_sweep(values),
                "SweepWithRuns": lambda: {"project": {"sweep": {**self.sweep, "runs": {"edges": []}}}},
                "CreateAgent": lambda: {"createAgent": {"agent": {"id": "G"}}},
                "Heartbeat": lambda: {
                    "agentHeartbeat": {"agent": {"id": "G"}, "commands": json.dumps(self._commands())}
                },
                "ServerFeaturesQuery": lambda: {"serverInfo": {"features": []}},
                "OrganizationCoreWeaveOrganizationID": lambda: {
                    "entity": {"organization": {"coreWeaveOrganizationId": None}}
                },
                "RunResumeStatus": lambda: {"model": {**_PROJECT, "bucket": self._resume(values["name"])}},
                "UpsertBucket": lambda: {"upsertBucket": self._upsert(values)},
                "CreateRunFiles": lambda: {"createRunFiles": self._run_files(values)},
                "NotifyScriptableRunAlert": lambda: self._alert(values),
                "ArtifactType": lambda: {"project": {"artifact": None}},
                "CreateArtifact": lambda: {"createArtifact": {"artifact": self._create_artifact(values)}},
                "CreateArtifactManifest": lambda: {"createArtifactManifest": self._manifest(values)},
                "UpdateArtifactManifest": lambda: {"updateArtifactManifest": self._manifest(values)},
                "CreateArtifactFiles": lambda: {"createArtifactFiles": {"files": self._artifact_files(values)}},
                "CommitArtifact": lambda: self._commit(values),
                "UseArtifact": lambda: self._use(values),
            }
            return answers[operation]()

    def stream(self, run_id: str, sent: dict[str, Any]) -> None:
        """Takes a request of the file stream: lines of history, the summary, the end."""
        with self._lock:
            run = self.runs[run_id]
            run.preempting += bool(sent.get("preempting"))
            for name, chunk in (sent.get("files") or {}).items():
                lines = chunk["content"]
                if name == "wandb-history.jsonl":  # lines from an offset on take the place of those that are there
                    run.history[chunk["offset"] :] = [json.loads(line) for line in lines]
                elif name == "wandb-events.jsonl":
                    run.events = chunk["offset"] + len(lines)
                elif name == "wandb-summary.json":
                    run.summary = json.loads(lines[-1])
            if sent.get("complete"):
                run.exit_codes.append(sent["exitcode"])

    def put(self, path: str, content: bytes) -> None:
        """Takes an uploaded file."""
        _, kind, owner, name = path.split("/", 3)
        with self._lock:
            if kind == "run-file":
                self.runs[owner].files[name] = content
            else:
                self.artifacts[owner].files[name] = content

    def _resume(self, name: str) -> dict[str, Any] | None:
        if (run := self.runs.get(name)) is None:
            return None
        return {
            "id": f"R-{name}", "name": name, "displayName": run.last("displayName"), "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0, "historyLineCount": len(run.history), "eventsLineCount": run.events,
            "historyTail": json.dumps([json.dumps(line) for line in run.history[-1:]]), "eventsTail": json.dumps([]),
            "config": json.dumps(run.config), "tags": run.last("tags"), "notes": run.last("notes"),
            "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def _upsert(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun())
        run.upserts.append(values)
        if values.get("config"):
            run.config = json.loads(values["config"])
        bucket = {
            "id": f"R-{name}", "name": name, "displayName": run.last("displayName") or name, "description": None,
            "config": json.dumps(run.config), "sweepName": run.last("sweep"), "project": _PROJECT,
            "historyLineCount": len(run.history),
        }  # fmt: skip
        return {"bucket": bucket, "inserted": inserted}

    def _run_files(self, values: dict[str, Any]) -> dict[str, Any]:
        place = f"{self.url}/run-file/{values['run']}"
        files = [{"name": name, "uploadUrl": f"{place}/{name}"} for name in values["files"]]
        return {"runID": f"R-{values['run']}", "uploadHeaders": [], "files": files}

    def _alert(self, values: dict[str, Any]) -> dict[str, Any]:
        self.alerts.append(values)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _upsert_view(self, values: dict[str, Any]) -> dict[str, Any]:
        self.views.append(values)
        return {"upsertView": {"view": {"id": f"W{len(self.views)}", "name": values["name"]}, "inserted": True}}

    def _upsert_sweep(self, values: dict[str, Any]) -> dict[str, Any]:
        self.sweep = {"id": "S1", "name": "sweep1", "state": "RUNNING", "config": values["config"]}
        sweep = {"name": self.sweep["name"], "project": _PROJECT}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _commands(self) -> list[dict[str, Any]]:
        if not self.trials:
            return [{"type": "exit"}]
        args = {name: {"value": value} for name, value in self.trials.pop(0).items()}
        return [{"type": "run", "run_id": f"trial{len(self.trials)}", "program": None, "args": args}]

    def _create_artifact(self, values: dict[str, Any]) -> dict[str, Any]:
        artifact_id = f"A{len(self.artifacts)}"
        self.artifacts[artifact_id] = StoredArtifact(
            values["artifactCollectionName"], values["artifactTypeName"], values["runName"],
            [alias["alias"] for alias in values.get("aliases") or []], json.loads(values.get("metadata") or "{}"),
        )  # fmt: skip
        return {"id": artifact_id, "state": "PENDING", "artifactSequence": {"id": "S", "latestArtifact": None}}

    def _manifest(self, values: dict[str, Any]) -> dict[str, Any]:
        artifact_id = values.get("artifactID") or values["artifactManifestID"].split("-")[1]
        name = values.get("name") or "wandb_manifest.json"
        place = f"{self.url}/artifact-file/{artifact_id}/{name}"
        file = {"id": "F", "name": name, "displayName": name, "uploadUrl": place, "uploadHeaders": []}
        return {"artifactManifest": {"id": f"M-{artifact_id}", "file": file}}

    def _artifact_files(self, values: dict[str, Any]) -> dict[str, Any]:
        return {
            "edges": [
                {
                    "node": {
                        "id": "F", "name": spec["name"], "displayName": spec["name"], "uploadHeaders": [], "storagePath": spec["name"],
                        "uploadUrl": f"{self.url}/artifact-file/{spec['artifactID']}/{spec['name']}",
                        "uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]},
                    }
                }
                for spec in values["artifactFiles"]
            ]
        }  # fmt: skip

    def _commit(self, values: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[values["artifactID"]].committed = True
        return {"commitArtifact": {"artifact": {"id": values["artifactID"], "digest": "d"}}}

    def _use(self, values: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[values["artifactID"]].used_by.append(values["runName"])
        return {"useArtifact": {"artifact": {"id": values["artifactID"]}}}


_PROJECT = {"id": "P", "name": "attrtrain", "entity": {"id": "E", "name": ENTITY}}
_VIEWER = {
    "id": "V", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "email": "tester@example.org", "admin": False,
    "flags": "{}", "teams": {"edges": [{"node": {"name": ENTITY}}]},
}  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wandb: WandbServer

    def do_GET(self) -> None:
        self._answer(404, {})

    def do_PUT(self) -> None:
        self.wandb.put(self.path, self._body())
        self._answer(200, {})

    def do_POST(self) -> None:
        body = self._body()
        login = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if self.path.startswith("/sdk/otel"):
            return self._answer(200, {})
        if not login.endswith(":" + API_KEY):
            self.wandb.refused.append(self.path)
            return self._answer(401, {"errors": [{"message": "invalid API key"}]})
        if self.path == "/graphql":
            return self._graphql(json.loads(body))
        if found := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.wandb.stream(found[1], json.loads(body))
            return self._answer(200, {"limits": {}})
        return self._answer(404, {})

    def _graphql(self, asked: dict[str, Any]) -> None:
        operation = asked.get("operationName") or re.search(r"(?:query|mutation) (\w+)", asked["query"])[1]
        try:
            self._answer(200, {"data": self.wandb.graphql(operation, asked["query"], asked.get("variables") or {})})
        except KeyError as error:
            self.wandb.unknown.append(f"{operation} {error}: {asked['query']} {asked.get('variables')}")
            self._answer(200, {"data": None, "errors": [{"message": f"no such operation {operation}"}]})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, code: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Stays silent."""

    def handle(self) -> None:
        with suppress(ConnectionError):  # a killed client's
            super().handle()


@contextmanager
def serving() -> Iterator[WandbServer]:
    """A server on a free port of this machine."""
    wandb = WandbServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"wandb": wandb}))
    http.daemon_threads = True
    wandb.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield wandb
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
