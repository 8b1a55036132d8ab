"""A headless Chromium, driven over its DevTools pipe; for tests only.

``--remote-debugging-pipe`` reads commands from descriptor 3 and writes responses and events to 4, each a JSON object
that ends with a zero byte, so neither a port nor another library is needed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections import deque
from pathlib import Path

from sdft_cli.types import Json

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-dev-shm-usage",
)
_SECONDS = 60


def find() -> str | None:
    """The path of an installed browser, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser with one page; everything the page reports is kept in ``events``."""

    def __init__(self, program: str):
        self.profile = tempfile.mkdtemp(prefix="sdft-browser-")
        self.write, self.read, self.pid = _spawn(
            [program, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self.profile}"]
        )
        self.events: deque[Json] = deque()
        self.buffer, self.count, self.session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.write)
        os.close(self.read)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, **params: object) -> Json:
        """One command's result; events that arrive in the meantime are kept."""
        self.count += 1
        row = {"id": self.count, "method": method, "params": params} | (
            {"sessionId": self.session} if self.session else {}
        )
        os.write(self.write, json.dumps(row).encode() + b"\0")
        while (response := self._next()).get("id") != self.count:
            self.events.append(response)
        assert "error" not in response, response
        return response["result"]

    def open(self, page: Path) -> None:
        """Load a file and wait until it has loaded with everything it requests."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, expression: str) -> Json:
        """The value of a JavaScript expression in the page."""
        evaluated = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in evaluated, evaluated
        return evaluated["result"].get("value")

    def look(self, width: int = 1280, scheme: str = "light") -> None:
        """Set the window's width and the colour scheme that the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(image["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def of(self, method: str) -> list[Json]:
        """The parameters of all events of one kind since the page was opened."""
        self.run("0")  # whatever the page has reported by now arrives before this result
        return [event["params"] for event in self.events if event.get("method") == method]

    def _next(self) -> Json:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not respond")
            chunk = os.read(self.read, 1 << 20)
            if not chunk:
                raise EOFError("the browser has ended")
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)


def _spawn(command: list[str]) -> tuple[int, int, int]:
    """Start the browser; returns the descriptors to write to and to read from, and its process id."""
    (commands, write), (read, responses) = _pipe(), _pipe()
    actions = [(os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, responses, 4)]
    actions += [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    os.close(commands)
    os.close(responses)
    return write, read, pid


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are above 9, so that they do not collide with 3 and 4."""
    ends = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return read, write
