"""Base URLs: what is requested, what is shown, and which keys may go there.

A pasted ``/chat/completions`` is taken off, a query such as Azure's ``?api-version=…`` goes with every request, and
what may be secret (a password, a query) is never shown.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from sdft_cli.llm.api_key import SHORTEST, without_secrets

OPENAI = "https://api.openai.com/v1"
_AZURE = (".azure.com", ".azure.us", ".azure.cn", ".azure-api.net")


class Address(NamedTuple):
    """An endpoint: its URL without the query, the query, and how it is shown and stored."""

    url: str
    query: dict[str, str]
    shown: str

    @property
    def host(self) -> str:
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def is_openai(self) -> bool:
        """Whether this is OpenAI's own host, over TLS."""
        host = self.host
        return self.url.startswith("https://") and (host == "api.openai.com" or host.endswith(".api.openai.com"))

    @property
    def is_azure(self) -> bool:
        return self.host.endswith(_AZURE)

    @property
    def secrets(self) -> list[str]:
        """What is secret in the URL itself."""
        password = urlsplit(self.url).password
        values = [value for name, value in self.query.items() if name != "api-version"]
        return [text for text in [*values, unquote(password or "")] if len(text) >= SHORTEST]

    def headers(self, key: str) -> dict[str, str]:
        """The headers that carry a key: Azure reads ``api-key``, everybody else ``Authorization``."""
        azure, other = {"api-key": key}, {"Authorization": f"Bearer {key}"}
        if self.is_azure:
            return azure
        return {**azure, **other} if "api-version" in self.query else other


def address_of(base_url: str | None) -> Address:
    """The endpoint at a base URL: the one given, else that of $OPENAI_BASE_URL, else OpenAI's."""
    parts = urlsplit((base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).strip())
    path = parts.path.rstrip("/")
    for pasted in ("/chat/completions", "/completions"):
        path = path.removesuffix(pasted).rstrip("/")
    url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return Address(url, dict(parse_qsl(parts.query, keep_blank_values=True)), without_secrets(url))
