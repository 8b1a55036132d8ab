"""An OpenAI-compatible server on loopback that follows a script: good responses, and every fault of real servers.

A response depends only on its request, so that two runs can be compared byte by byte. The script is called for each
request with the number of equal requests before it; it returns the name of a fault, or None::

    with FaultServer(lambda body: "42", lambda body, before: "500" if not before else None) as server: ...

It also has files and batches: a batch stays in progress until `FaultServer.work` finishes it.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Write = Callable[[Body], str]
Script = Callable[[Body, int], str | None]
#: Faults of a hundred requests; there is only one time-out, because it makes a test slow.
FAULTS = 6 * ["500"] + 5 * ["truncated"] + 4 * ["429 0"] + 4 * ["empty"] + ["hang"]


def content(body: Body) -> str:
    """The last message's text."""
    return body["messages"][-1]["content"]


def chance(body: Body, *more: object) -> float:
    """A number in [0, 1) that depends on the request's prompt and seed only."""
    key = json.dumps([content(body), body.get("seed"), *more])
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def one_in_five(body: Body, before: int) -> str | None:
    """One of the `FAULTS` for 20 % of the requests."""
    at = int(chance(body, "fault", before) * 100)
    return FAULTS[at] if at < len(FAULTS) else None


class FaultServer:
    """``requests`` has every body in order of arrival, ``good`` how often each request got a good response."""

    def __init__(self, write: Write, script: Script = lambda body, before: None, hang: float = 5.0):
        self.write, self.script, self.hang = write, script, hang
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.faults: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Body] = {}
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def seen(self, body: Body, key: str) -> str | None:
        """Count the request; returns the fault that the script wants."""
        with self.lock:
            before = self.faults[key] + self.good[key]
            self.requests.append(body)
            fault = self.script(body, before)
            (self.faults if fault else self.good)[key] += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        return fault

    def completion(self, body: Body, fault: str = "") -> bytes:
        """A good response, apart from a fault in its content."""
        count = 1 if fault == "ignore-n" else body.get("n", 1)
        choices = []
        for i in range(count):
            text = "" if fault == "empty" else self.write({**body, "seed": body.get("seed", 0) + i})
            for stop in [] if fault == "ignore-stop" else body.get("stop", []):
                text = text.split(stop)[0]
            choice: Body = {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            if body.get("logprobs") and fault != "ignore-logprobs":
                choice["logprobs"] = {"content": [{"token": "x", "logprob": -0.5}]}
            choices.append(choice)
        read, written = len(content(body).split()), sum(len(c["message"]["content"].split()) for c in choices)
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return json.dumps({"object": "chat.completion", "choices": choices, "usage": usage}).encode()

    def work(self, status: str = "completed") -> None:
        """Finish the batches in progress: good responses in one file, faults (only statuses) in another."""
        for batch in [b for b in self.batches.values() if b["status"] == "in_progress"]:
            lines: dict[str, list[str]] = {"output_file_id": [], "error_file_id": []}
            for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
                fault = self.seen(line["body"], json.dumps(line["body"]))
                self.open -= 1
                code, _, text = (fault or "200 ").partition(" ")
                body = json.loads(self.completion(line["body"]) if not fault else text or "{}")
                response = {"custom_id": line["custom_id"], "response": {"status_code": int(code), "body": body}}
                lines["error_file_id" if fault else "output_file_id"].append(json.dumps({**response, "error": None}))
            for name, file_lines in lines.items():
                if file_lines:
                    self.files[f"{name}-{batch['id']}"] = "\n".join(file_lines).encode()
                    batch[name] = f"{name}-{batch['id']}"
            batch["status"] = status

    def batch_api(self, method: str, path: str, content: bytes) -> bytes:
        """The responses of /v1/files and /v1/batches, as far as they are needed."""
        if method == "POST" and path == "/v1/files":
            name = f"file-{len(self.files)}"  # the part of the multipart form between the file's headers and its end
            self.files[name] = content.split(b"filename=", 1)[1].split(b"\r\n\r\n", 1)[1].split(b"\r\n--", 1)[0]
            return json.dumps({"id": name, "object": "file"}).encode()
        if method == "POST":
            name = f"batch-{len(self.batches)}"
            self.batches[name] = {"id": name, "object": "batch", "status": "in_progress", **json.loads(content)}
            return json.dumps(self.batches[name]).encode()
        if path.startswith("/v1/files/"):
            return self.files.get(path.split("/")[3], b"")
        if path.startswith("/v1/batches/"):
            return json.dumps(self.batches.get(path.split("/")[3])).encode()
        return json.dumps({"object": "list", "data": list(reversed(self.batches.values()))}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Ignore clients that have disconnected."""


class _Handler(BaseHTTPRequestHandler):
    owner: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        found = self.owner.batch_api("GET", self.path.split("?")[0], b"")
        self._send(404 if found in (b"", b"null") else 200, found)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if "completions" not in self.path:
            self._send(200, self.owner.batch_api("POST", self.path, raw))
            return
        body, owner = json.loads(raw), self.owner
        owner.headers.append({k.lower(): v for k, v in self.headers.items()})
        fault = owner.seen(body, raw.decode())
        try:
            self._answer(body, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with owner.lock:
                owner.open -= 1

    def _answer(self, body: Body, fault: str | None) -> None:
        """A status may be followed by Retry-After, a message or the whole body in JSON; ``slow`` by seconds."""
        name, _, more = (fault or "").partition(" ")
        if name == "hang":
            self.owner.closing.wait(self.owner.hang)
            self.close_connection = True
        elif name == "drop":
            self.close_connection = True
        elif name == "echo":
            self._send(401, self._error(f"wrong key {self.headers['Authorization'].removeprefix('Bearer ')}"))
        elif name.isdigit():
            text = more.encode() if more.startswith("{") else self._error(more or "no")
            self._send(int(name), text, {"Retry-After": more} if more.isdigit() else {})
        elif name == "json":
            self._send(200, more.encode())
        elif name == "truncated":
            self._send(200, self.owner.completion(body, "")[:-20])
        else:
            time.sleep(float(more) if name == "slow" else 0.0)
            self._send(200, self.owner.completion(body, name))

    def _error(self, message: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": "fault"}}).encode()

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def response_of(body: dict) -> str:
    """The response as an honest judge reads it: what is between the last fences with the first fence's code."""
    text = content(body)
    code = re.match(r"=== question (\w+) begins ===\n", text)[1]
    [inside] = re.findall(f"=== response {code} begins ===\n(.*?)\n=== response {code} ends ===", text, re.DOTALL)
    return inside
