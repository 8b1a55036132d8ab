"""JSON over HTTP to a running vLLM server, many requests at once; every failure is an error of one line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from sdft_cli.errors import SdftError, UsageError
from sdft_cli.llm.api_key import read_key, redacted, without_secrets
from sdft_cli.types import Json

#: Where vLLM itself looks for the key that its server requires.
KEY_VARIABLE = "VLLM_API_KEY"
SECONDS = 1800.0  # for a weight update, or a long completion of a large model

Body = Mapping[str, object]


class NoSuchPath(SdftError):
    """The server does not know the path (404 or 405)."""


class HttpClient:
    """Requests to ``base_url`` (with or without ``/v1``), of which at most ``at_once`` are open together."""

    def __init__(self, base_url: str, at_once: int):
        parts = urlsplit(base_url if "//" in base_url else f"http://{base_url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"engine.base_url {base_url!r} is not an address", "write http://HOST:PORT")
        self.path = parts.path.rstrip("/").removesuffix("/v1")
        self.url = without_secrets(parts._replace(path=self.path).geturl())
        connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: connection(
            parts.hostname or "", parts.port, timeout=SECONDS
        )
        self.key = read_key(KEY_VARIABLE, None)
        self.at_once = at_once

    def get(self, path: str) -> Json:
        """The JSON at ``path``."""
        return self._request("GET", path, None)

    def post(self, path: str, body: Body | None = None) -> Json:
        """The answer to ``body``: JSON, or None where it is empty or plain text."""
        return self._request("POST", path, body or {})

    def post_all(self, path: str, bodies: Sequence[Body]) -> list[Json]:
        """One answer per body, in their order."""
        with ThreadPoolExecutor(max(1, min(self.at_once, len(bodies)))) as pool:
            return list(pool.map(lambda body: self.post(path, body), bodies))

    def _request(self, method: str, path: str, body: Body | None) -> Json:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        connection = self._connect()
        try:
            connection.request(method, self.path + path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            status, raw = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise SdftError(
                f"no answer from the server at {self.url}{path}: {error or type(error).__name__}",
                "check that it is running and engine.base_url is right; continue the run with --resume",
            ) from error
        finally:
            connection.close()
        if status >= 300:
            kind = NoSuchPath if status in (404, 405) else SdftError
            raise kind(f"{self.url}{path}: {status} {redacted(_error_message(raw), self.key)}", _hint(status))
        try:
            return json.loads(raw)
        except ValueError:
            return None


def _error_message(raw: bytes) -> str:
    """The message in an error's body, on one line."""
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
        return f"the server requires a key: export {KEY_VARIABLE}"
    return "see the server's own log; continue the run with --resume"
