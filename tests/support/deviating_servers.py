"""OpenAI-compatible servers on loopback that deviate from OpenAI as real ones do, each a small script.

A script is called with every request and returns what is sent back; `completion` makes a good reply. The words of errors
are those of the providers named::

    with DeviatingServer(refuses_temperature, lambda body: "42") as server: ...
"""

# ruff: noqa: E501 (errors are quoted as they are sent)
from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from support.fault_server import content

Body = dict[str, Any]
Write = Callable[[Body], str]
#: Tokens that every prompt and every written reply counts as, without thinking.
READ, WRITTEN = 10, 5


@dataclass(frozen=True)
class Received:
    """One request: its body, headers (in lower case), path and query; how many came before it, and how many of those
    with the same prompt."""

    body: Body
    headers: dict[str, str]
    path: str
    query: str
    before: int
    repeats: int


@dataclass(frozen=True)
class Answer:
    """What is sent back; ``status`` 0 closes the connection. ``billed``: tokens that the provider charges for it."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)
    billed: int = 0


Script = Callable[[Received, str], Answer]


class DeviatingServer:
    """``requests`` has all that came, in order; ``billed`` the tokens charged so far."""

    def __init__(self, script: Script, write: Write):
        self.script, self.write = script, write
        self.requests: list[Received] = []
        self.billed = 0
        self.lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.root}/v1"

    def __enter__(self) -> DeviatingServer:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, body: Body, headers: dict[str, str], url: str) -> Answer:
        parts = urlsplit(url)
        with self.lock:
            repeats = sum(r.body.get("messages") == body.get("messages") for r in self.requests)
            received = Received(body, headers, parts.path, parts.query, len(self.requests), repeats)
            self.requests.append(received)
            answer = self.script(received, self.write(body))
            self.billed += answer.billed
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Ignore clients that have disconnected."""


class _Handler(BaseHTTPRequestHandler):
    owner: DeviatingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Body) -> None:
        answer = self.owner.answer(body, {k.lower(): v for k, v in self.headers.items()}, self.path)
        if not answer.status:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        data = answer.text.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


# --- what is sent -----------------------------------------------------------------------------------------------------


def completion(text: str | None, finish: str | None = "stop", usage: Body | None = None, **message: Any) -> Answer:
    """A good response; ``message`` has further fields of the message."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    counts = {"prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": READ + WRITTEN}
    body = {"object": "chat.completion", "choices": [choice], "usage": counts if usage is None else usage}
    return Answer(200, json.dumps(body), billed=READ + WRITTEN)


def error(status: int, message: str, **more: Any) -> Answer:
    """An error in OpenAI's form."""
    return Answer(status, json.dumps({"error": {"message": message, "type": "invalid_request_error", **more}}))


def stream(text: str, finish: str | None = "stop", done: bool = True) -> Answer:
    """The same as server-sent events: a chunk per word, the usage last."""
    words = [f"{word} " for word in text.split(" ")]
    words[-1] = words[-1].rstrip(" ")
    chunks: list[Body] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
    chunks += [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words]
    if finish:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": None})
        chunks.append({"choices": [], "usage": {"prompt_tokens": READ, "completion_tokens": WRITTEN}})
    events = [": keep-alive", *(f"data: {json.dumps(chunk)}" for chunk in chunks), *(["data: [DONE]"] if done else [])]
    return Answer(200, "\n\n".join(events) + "\n\n", {"Content-Type": "text/event-stream"}, READ + WRITTEN)


# --- servers that are done with in the end ------------------------------------------------------------------------------


def reasoning_model(received: Received, text: str) -> Answer:
    """OpenAI's o-series and gpt-5: neither temperature nor max_tokens; thinking is counted within the completion."""
    body = received.body
    if "max_tokens" in body:
        words = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return error(400, words, param="max_tokens", code="unsupported_parameter")
    if "temperature" in body:
        words = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
        return error(400, words, param="temperature", code="unsupported_value")
    thought = {"completion_tokens_details": {"reasoning_tokens": 64}}
    usage = {"prompt_tokens": READ, "completion_tokens": 64 + WRITTEN, "total_tokens": READ + 64 + WRITTEN, **thought}
    answer = completion(text, usage=usage)
    return Answer(200, answer.text, billed=READ + 64 + WRITTEN)


def gemini(received: Received, text: str) -> Answer:
    """Errors are lists; ``seed`` is an unknown name; thinking is only in the total."""
    if "seed" in received.body:
        message = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
        return Answer(400, json.dumps([{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}]))
    usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN, "total_tokens": READ + WRITTEN + 10_000}
    return Answer(200, completion(text, usage=usage).text, billed=READ + WRITTEN + 10_000)


def thinking_beside_the_count(received: Received, text: str) -> Answer:
    """Thinking is counted beside ``completion_tokens``, and in no total."""
    usage = {"prompt_tokens": READ, "completion_tokens": WRITTEN, "reasoning_tokens": 4000}
    return Answer(200, completion(text, usage=usage).text, billed=READ + WRITTEN + 4000)


def strict_schema(received: Received, text: str) -> Answer:
    """Mistral and whatever is built on pydantic: what is not in the schema is refused with its place."""
    for name in ("seed", "n"):
        if name in received.body:
            problem = {
                "type": "extra_forbidden",
                "loc": ["body", name],
                "msg": "Extra inputs are not permitted",
                "input": 1,
            }
            return Answer(422, json.dumps({"detail": [problem]}))
    return completion(
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": text}]
    )  # type: ignore[arg-type]


def one_at_a_time(received: Received, text: str) -> Answer:
    """Groq: ``n`` must be at most 1."""
    if received.body.get("n", 1) > 1:
        return error(400, "'n' : number must be at most 1")
    return completion(text, finish="eos")


def no_system_role(received: Received, text: str) -> Answer:
    """Gemma behind vLLM."""
    if any(message["role"] == "system" for message in received.body["messages"]):
        return Answer(400, json.dumps({"object": "error", "message": "System role not supported", "code": 400}))
    return completion(text)


def no_temperature_of_zero(received: Received, text: str) -> Answer:
    """TGI."""
    if received.body["temperature"] == 0:
        words = "Input validation error: `temperature` must be strictly positive"
        return Answer(422, json.dumps({"error": words, "error_type": "validation"}))
    return completion(text, finish="eos_token")


def stream_only(received: Received, text: str) -> Answer:
    """Gateways to models that only stream."""
    return stream(text) if received.body.get("stream") else Answer(400, '{"detail": "Stream must be set to true"}')


def streams_anyway(received: Received, text: str) -> Answer:
    """A gateway that streams whether it was asked to or not."""
    return stream(text)


def stream_that_breaks_off(received: Received, text: str) -> Answer:
    """The first stream about a prompt ends in the middle."""
    return stream(text) if received.repeats else stream(text, finish=None, done=False)


def overloaded_inference(received: Received, text: str) -> Answer:
    """DeepSeek under load: half a text, with a finish reason of its own, billed all the same."""
    if received.before and not received.repeats:
        return completion(text[: len(text) // 2], finish="insufficient_system_resource")
    return completion(text)


def no_usage(received: Received, text: str) -> Answer:
    """Counts no tokens."""
    return Answer(200, completion(text, usage={}).text, billed=0)


def reset_once(received: Received, text: str) -> Answer:
    """The first connection is closed without a response."""
    return completion(text) if received.before else Answer(0, "")


def error_as_reply(received: Received, text: str) -> Answer:
    """OpenRouter: a provider's passing error with status 200, once the endpoint is known to work."""
    if received.before == 1:
        return Answer(200, json.dumps({"error": {"message": "Provider returned error", "code": 502}}))
    return completion(text)


CURED = (
    *(reasoning_model, gemini, thinking_beside_the_count, strict_schema, one_at_a_time, no_system_role),
    *(no_temperature_of_zero, stream_only, streams_anyway, stream_that_breaks_off, overloaded_inference, no_usage),
    *(reset_once, error_as_reply),
)


# --- servers that refuse one prompt ---------------------------------------------------------------------------------------


def refusing(part: str, status: int, body: Any) -> Script:
    """A server that refuses prompts with ``part`` in them in these words, and answers all others."""

    def script(received: Received, text: str) -> Answer:
        if part in content(received.body):
            return Answer(status, body if isinstance(body, str) else json.dumps(body))
        return completion(text)

    return script


REFUSALS: dict[str, tuple[int, Any]] = {
    "too long, OpenAI": (400, {"error": {"message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", "code": "context_length_exceeded"}}),
    "too long, SGLang": (400, {"object": "error", "message": "The input (61709 tokens) is longer than the model's context length (40960 tokens)."}),
    "too long, TGI": (422, {"error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", "error_type": "validation"}),
    "too long, llama.cpp": (500, {"error": {"code": 500, "message": "the request exceeds the available context size. try increasing the context size"}}),
    "too long, Gemini": (400, [{"error": {"code": 400, "message": "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."}}]),
    "too long, a proxy": (413, "<html><title>413 Request Entity Too Large</title></html>"),
    "moderation, OpenRouter": (403, {"error": {"message": "x requires moderation. Your input was flagged for \"violence\".", "code": 403}}),
    "moderation, DeepSeek": (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}),
    "moderation, Azure": (400, {"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "code": "content_filter"}}),
    "in words that nobody knows": (400, {"error": {"message": "the flux capacitor is misaligned"}}),
    "filtered while it was written": (200, json.loads(completion("", finish="content_filter").text)),
}  # fmt: skip


# --- servers that cannot be used ------------------------------------------------------------------------------------------


def always(answer: Answer) -> Script:
    """Whatever is asked."""
    return lambda received, text: answer


#: A word of the one line, or of its hint.
HOPELESS: dict[str, tuple[Script, str]] = {
    "a wrong key": (always(error(401, "Incorrect API key provided: sk-ab****yz", code="invalid_api_key")), "--api-key-env"),
    "no money": (always(error(402, "Insufficient Balance")), "no money left"),
    "no money, OpenAI": (always(error(429, "You exceeded your current quota", code="insufficient_quota")), "no money left"),
    "no permission": (always(error(403, "You have insufficient permissions for this operation")), "permissions"),
    "no such model": (always(error(404, "The model `m` does not exist", code="model_not_found")), "model's name"),
    "no such path": (always(Answer(404, '{"detail": "Not Found"}')), "usually ends with /v1"),
    "a web page": (always(Answer(200, "<!doctype html><html>Welcome</html>", {"Content-Type": "text/html"})), "web page"),
    "nothing": (always(Answer(200, "")), "empty body"),
    "something else": (always(Answer(200, '{"status": "ok"}')), "no choices"),
    "an error as a reply": (always(Answer(200, '{"error": "Unexpected endpoint or method. (POST /chat/completions)"}')), "/v1"),
    "thinking only": (always(completion("", reasoning_content="Let me think about it.")), "thinking without an answer"),
    "thinking only, in parts": (always(completion(None, reasoning="Hm.")), "raise --max-tokens"),
    "thinking up to the limit": (always(completion("", finish="length", reasoning_content="Let me")), "before their first word"),
    "replies that do not end": (always(completion("half a te", finish="error")), "finish reason 'error'"),
    "a pause of a day": (always(Answer(429, '{"error": {"message": "slow down"}}', {"Retry-After": "86400"})), "24 h"),
    "a limit per day": (always(error(429, "Rate limit exceeded: free-models-per-day")), "per day"),
    "unknown words": (always(error(400, "the flux capacitor is misaligned")), "flux capacitor"),
    "tools": (always(error(400, "Unsupported parameter: 'max_completion_tokens'")), "--max-tokens"),
}  # fmt: skip
