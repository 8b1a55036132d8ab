"""HTTP client of an OpenAI-compatible endpoint: sends a request body, returns the response, whatever it is.

`HttpClient.post` raises nothing for what a server or the network does: without a response, the status is 0. The openai
library's own retries are off (``max_retries=0``): they can pay twice unnoticed, and they give up on a long Retry-After
(ours: `llm.retries`). The key is removed from everything that a server sends back.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sdft_cli.errors import SdftError
from sdft_cli.llm.api_key import missing_key, read_key, redacted, without_secrets
from sdft_cli.llm.types import RESUME_HINT, ModelId, TeacherOptions
from sdft_cli.types import Json

if TYPE_CHECKING:
    from openai import OpenAI

OPENAI = "https://api.openai.com/v1"
T = TypeVar("T")


class HttpResponse(NamedTuple):
    """A server's response as it came, less the key. ``status`` 0: there was none, and ``body`` says why."""

    status: int
    headers: Mapping[str, str]
    body: str


def base_url(options: TeacherOptions) -> str:
    """The address as the user gave it, secrets included."""
    return options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI


def endpoint_model_id(options: TeacherOptions) -> ModelId:
    """The `ModelId` of an endpoint's model; needs neither a key nor the network."""
    return {"model": options.model, "base_url": without_secrets(base_url(options))}


class HttpClient:
    """One endpoint. ``address`` is its URL without secrets; ``reached`` becomes True at the first response."""

    def __init__(self, options: TeacherOptions):
        self.options = options
        self.address = without_secrets(base_url(options))
        self.key = read_key(options.api_key_env, options.api_key_file)
        self.reached = False

    def need_key(self) -> None:
        """Raise `UsageError` if there is no key and the endpoint is OpenAI's, which needs one."""
        if not self.key and self.address == OPENAI:
            raise missing_key(self.options.api_key_env)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """`post` works inside this block."""
        from openai import AsyncOpenAI

        async with AsyncOpenAI(
            api_key=self._key_or_any(), base_url=base_url(self.options), max_retries=0, timeout=self.options.timeout
        ) as self.client:
            yield

    async def post(self, body: dict[str, Json]) -> HttpResponse:
        """Send a chat completion request; never raises for a fault of the server or the network."""
        import openai

        try:
            async with asyncio.timeout(self.options.timeout):  # of the whole; the library's own is for each part
                completions = self.client.chat.completions.with_raw_response
                raw = await completions.create(model=self.options.model, messages=[], extra_body=body)
                return self.received(raw.status_code, raw.headers, raw.text)
        except openai.APIStatusError as error:
            return self.received(error.status_code, error.response.headers, error.response.text)
        except (TimeoutError, openai.APITimeoutError):
            return HttpResponse(0, {}, f"no response within {self.options.timeout:g} s")
        except openai.APIConnectionError as error:
            return self.received(0, {}, f"no connection: {error.__cause__ or error}")

    def received(self, status: int, headers: Mapping[str, str], body: str) -> HttpResponse:
        """The response without the key, should the server have echoed it; an error also without anything like a key."""
        self.reached = self.reached or status > 0
        return HttpResponse(status, headers, redacted(body, self.key, guess=status != 200))

    def call(self, action: Callable[[OpenAI], T]) -> T:
        """One call of another kind, such as one about files or batches; `SdftError` for whatever goes wrong.

        Nothing is retried unnoticed: a batch that is created twice is paid for twice.
        """
        import openai

        url, timeout = base_url(self.options), self.options.timeout
        try:
            with openai.OpenAI(api_key=self._key_or_any(), base_url=url, max_retries=0, timeout=timeout) as client:
                return action(client)
        except openai.OpenAIError as error:
            what = redacted(" ".join(str(error).split())[:300], self.key, guess=True)
            raise SdftError(f"{self.address}: {what}", RESUME_HINT) from error

    def _key_or_any(self) -> str:
        return self.key or "none"  # the library demands a key even if the endpoint does not
