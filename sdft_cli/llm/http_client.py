"""HTTP client of an OpenAI-compatible endpoint: sends a request body, returns the response, whatever it is.

`HttpClient.post` raises nothing for what a server or the network does: without a response, the status is 0. The openai
library's own retries are off (``max_retries=0``): they can pay twice unnoticed, and they give up on a long Retry-After
(ours: `llm.retries`). Redirects are not followed, for the key must not follow them. The key is removed from everything
that a server sends back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sdft_cli.errors import SdftError
from sdft_cli.llm.addresses import address_of
from sdft_cli.llm.api_key import DEFAULT_VARIABLE, is_set, missing_key, read_key, redacted
from sdft_cli.llm.types import RESUME_HINT, ModelId, TeacherOptions
from sdft_cli.types import Json

if TYPE_CHECKING:
    from openai import OpenAI

TIMED_OUT = "no response within"
T = TypeVar("T")


class HttpResponse(NamedTuple):
    """A server's response as it came, less the key. ``status`` 0: there was none, and ``body`` says why."""

    status: int
    headers: Mapping[str, str]
    body: str


def endpoint_model_id(options: TeacherOptions) -> ModelId:
    """The `ModelId` of an endpoint's model; needs neither a key nor the network."""
    return {"model": options.model, "base_url": address_of(options.base_url).shown}


def status_of(error: SdftError) -> int:
    """The status of the response that an error of `HttpClient.call` is about; 0 if there was none."""
    return int(getattr(error.__cause__, "status_code", 0) or 0)


class HttpClient:
    """One endpoint. ``address`` is its URL without secrets; ``reached`` becomes True at the first response."""

    def __init__(self, options: TeacherOptions):
        self.options, self.endpoint = options, address_of(options.base_url)
        self.address = self.endpoint.shown
        self.named = options.api_key_env or options.api_key_file
        own = self.named or self.endpoint.is_openai
        self.key = read_key(options.api_key_env or DEFAULT_VARIABLE, options.api_key_file) if own else None
        self.reached = False

    @property
    def withheld(self) -> bool:
        """Whether there is a key for OpenAI that was not sent, because this is another host."""
        return not self.named and not self.endpoint.is_openai and is_set(DEFAULT_VARIABLE)

    def need_key(self) -> None:
        """Raise `UsageError` if there is no key and the endpoint is OpenAI's, which needs one."""
        if not self.key and self.endpoint.is_openai:
            raise missing_key(self.options.api_key_env or DEFAULT_VARIABLE)

    @property
    def not_set(self) -> str:
        """The variable that was named for the key and has none; "" if all is well."""
        return (self.options.api_key_env or "") if not self.key else ""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """`post` works inside this block."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        hooks = {"request": [self._set_headers_async]}
        client = DefaultAsyncHttpxClient(follow_redirects=False, timeout=self.options.timeout, event_hooks=hooks)
        async with AsyncOpenAI(**self._arguments(), http_client=client) as self.client:
            yield

    async def post(self, body: dict[str, Json]) -> HttpResponse:
        """Send a chat completion request; never raises for a fault of the server or the network."""
        import openai

        headers = {"Accept": "text/event-stream"} if body.get("stream") else {}
        try:
            async with asyncio.timeout(self.options.timeout):  # of the whole; the library's own is for each part
                completions = self.client.chat.completions.with_raw_response
                raw = await completions.create(
                    model=self.options.model, messages=[], extra_body=body, extra_headers=headers
                )
                return self.received(raw.status_code, raw.headers, raw.text)
        except openai.APIStatusError as error:
            return self.received(error.status_code, error.response.headers, error.response.text)
        except (TimeoutError, openai.APITimeoutError):
            return HttpResponse(0, {}, f"{TIMED_OUT} {self.options.timeout:g} s")
        except openai.APIConnectionError as error:
            return self.received(0, {}, f"no connection: {error.__cause__ or error}")

    def received(self, status: int, headers: Mapping[str, str], body: str) -> HttpResponse:
        """The response without the key, should the server have echoed it; an error also without anything like a key."""
        self.reached = self.reached or status > 0
        return HttpResponse(status, headers, self._redacted(body, guess=status != 200))

    def call(self, action: Callable[[OpenAI], T]) -> T:
        """One call of another kind, such as one about files or batches; `SdftError` for whatever goes wrong.

        Nothing is retried unnoticed: a batch that is created twice is paid for twice.
        """
        import openai

        try:
            hooks: dict[str, list[Any]] = {"request": [self._set_headers]}
            client = openai.DefaultHttpxClient(follow_redirects=False, timeout=self.options.timeout, event_hooks=hooks)
            with openai.OpenAI(**self._arguments(), http_client=client) as openai_client:
                return action(openai_client)
        except openai.OpenAIError as error:
            what = self._redacted(" ".join(str(error).split())[:300], guess=True)
            raise SdftError(f"{self.address}: {what}", RESUME_HINT) from error

    def _redacted(self, text: str, guess: bool) -> str:
        for secret in self.endpoint.secrets:
            text = redacted(text, secret)
        return redacted(text, self.key, guess)

    def _arguments(self) -> dict[str, Any]:
        """How the library's clients are made; it demands a key even if the endpoint does not."""
        return {
            "api_key": self.key or "none",
            "base_url": self.endpoint.url,
            "default_query": self.endpoint.query,
            "max_retries": 0,
            "timeout": self.options.timeout,
        }

    def _set_headers(self, request: Any) -> None:
        """Send our key and no other: the library takes some from the environment that are meant for OpenAI."""
        headers = request.headers
        ours = self.endpoint.headers(self.key) if self.key else {}
        if "Authorization" not in ours and not headers.get("Authorization", "").startswith("Basic "):
            headers.pop("Authorization", None)
        if not self.endpoint.is_openai:
            headers.pop("OpenAI-Organization", None)
            headers.pop("OpenAI-Project", None)
        headers.update(ours)

    async def _set_headers_async(self, request: Any) -> None:
        self._set_headers(request)
