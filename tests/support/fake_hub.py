"""A Hugging Face hub on loopback: as much of its API as `datasets` needs to load files of a dataset repository.

A repository is its files by path; a dataset card (``README.md``) may say which file is which split::

    with FakeHub({"org/quiz": {"README.md": card("test", "data/t.jsonl"), "data/t.jsonl": b"…"}}) as hub:
        subprocess.run(…, env={"HF_ENDPOINT": hub.url, …})

``asked`` has the paths of all requests.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40
Repositories = Mapping[str, Mapping[str, bytes]]


def card(split: str, path: str, config: str = "default", licence: str = "mit") -> bytes:
    """A dataset card that names the one file of the one split of a configuration."""
    files = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {path}\n"
    return f"---\nlicense: {licence}\n{files}---\n# A dataset\n".encode()


class FakeHub:
    def __init__(self, repositories: Repositories):
        self.repositories, self.asked = repositories, list[str]()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(path)
        for name, files in self.hub.repositories.items():
            _, found, rest = path.partition(f"/datasets/{name}/")
            if found and rest.startswith("resolve/"):
                return self._file(files.get(rest.split("/", 2)[2]))
            if found and rest.startswith("tree/"):
                return self._json(_tree(files, "/".join(rest.split("/")[2:])))
            if found or path.endswith(f"/datasets/{name}"):
                about = {"_id": "1", "id": name, "sha": COMMIT, "private": False}
                return self._json({**about, "siblings": [{"rfilename": path} for path in files]})
        self._file(None)

    do_HEAD = do_GET

    def _file(self, content: bytes | None) -> None:
        if content is None:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._send(200, content, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT})

    def _json(self, data: Any) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tree(files: Mapping[str, bytes], folder: str) -> list[dict[str, Any]]:
    """What is directly in ``folder``: files and folders."""
    inside = f"{folder}/" if folder else ""
    below = {path.removeprefix(inside): content for path, content in files.items() if path.startswith(inside)}
    folders = sorted({path.split("/")[0] for path in below if "/" in path})
    return [
        *({"type": "directory", "path": f"{inside}{name}", "oid": _digest(name.encode())} for name in folders),
        *(
            {"type": "file", "path": f"{inside}{path}", "size": len(content), "oid": _digest(content)}
            for path, content in below.items()
            if "/" not in path
        ),
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
