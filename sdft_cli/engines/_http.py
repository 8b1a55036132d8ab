"""The few requests that a running vLLM server is asked: JSON over HTTP, many at once, each error one line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm.api_key import read_key, redacted, without_secrets

#: Where vLLM itself looks for the key that its server asks for.
KEY_VARIABLE = "VLLM_API_KEY"
SECONDS = 1800.0  # a weight update or a long completion of a large model


class Missing(SdftError):
    """The server knows no such address (404 or 405)."""


class Server:
    """A server at ``base_url`` (with or without its ``/v1``); ``at_once`` requests may be open together."""

    def __init__(self, base_url: str, at_once: int):
        parts = urlsplit(base_url if "//" in base_url else f"http://{base_url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"engine.base_url {base_url!r} is no address", "write http://HOST:PORT")
        self.path = parts.path.rstrip("/").removesuffix("/v1")
        self.url = without_secrets(parts._replace(path=self.path).geturl())
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: make(
            parts.hostname or "", parts.port, timeout=SECONDS
        )
        self.key = read_key(KEY_VARIABLE, None)
        self.at_once = at_once

    def get(self, path: str) -> Any:
        """The JSON at ``path``."""
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What comes back for ``body``: JSON, or None where the answer is empty or plain text."""
        return self._request("POST", path, body or {})

    def post_all(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """One answer a body, in their order."""
        with ThreadPoolExecutor(max(1, min(self.at_once, len(bodies)))) as pool:
            return list(pool.map(lambda body: self.post(path, body), bodies))

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        connection = self._connect()
        try:
            connection.request(method, self.path + path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            status, raw = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise SdftError(
                f"no answer from the server at {self.url}{path}: {error or type(error).__name__}",
                "is it running, and is engine.base_url right? A run goes on with --resume",
            ) from error
        finally:
            connection.close()
        if status >= 300:
            kind = Missing if status in (404, 405) else SdftError
            raise kind(f"{self.url}{path}: {status} {redacted(_said(raw), self.key)}", _hint(status))
        try:
            return json.loads(raw)
        except ValueError:
            return None


def _said(raw: bytes) -> str:
    """The message of an error's body, on one line."""
    text = raw.decode(errors="replace")
    try:
        body = json.loads(text)
        error = body.get("error", body) if isinstance(body, dict) else body
        text = error.get("message", text) if isinstance(error, dict) else str(error)
    except ValueError:
        pass
    return " ".join(text.split())[:300]


def _hint(status: int) -> str:
    if status in (401, 403):
        return f"the server asks for a key: export {KEY_VARIABLE}"
    return "the server's own log says more; a run goes on with --resume"
