"""Requests, replies and results: plain data, the same for a server and for a local model.

The work on one prompt is an *exchange*: a generator that yields a `Request`, is sent the replies to it, and returns a
`PromptResult`. It knows neither network nor disk nor model. So a server can have many exchanges open at once, a local
model can answer them in batches, and a run that was killed goes on by replaying them on the stored replies.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict
from urllib.parse import urlsplit

from sdft_cli.errors import UsageError, choose
from sdft_cli.types import Example, Json, Message

#: How a reply ended: the model was done, the token limit was reached, or the endpoint refuses to answer this prompt.
STOP, LENGTH, REFUSED = "stop", "length", "refused"
#: Further ways, none of them an answer: the server broke off, or there is thinking or a tool call and no text.
UNFINISHED, THOUGHT, CALLED = "unfinished", "thought", "called a tool"
#: What servers call these; anything else is `UNFINISHED`, for only what ended by itself is an answer.
_ENDINGS = {
    STOP: ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "end", "end_of_sequence", "complete",
           "completed", "finish", "finished", "done", "stop_str", "eot"),
    LENGTH: ("length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "model_length", "token_limit",
             "model_context_window_exceeded", "max_completion_tokens", "truncated"),
    REFUSED: ("content_filter", "content_filtered", "safety", "recitation", "prohibited_content", "blocklist", "spii",
              "refusal", "refused", "sensitive", "guardrail_intervened", "error_toxic", "moderation", "flagged",
              "blocked", "content_policy_violation", "image_safety", "language"),
    CALLED: ("tool_calls", "function_call", "tool_use", "tool_call", CALLED),
    THOUGHT: (THOUGHT,),
}  # fmt: skip
_ENDING_OF = {name: ending for ending, names in _ENDINGS.items() for name in names}
#: Why a reply with such an ending is no answer.
_NO_ANSWERS = {
    LENGTH: "cut off at max_tokens",
    REFUSED: "refused by the endpoint",
    UNFINISHED: "did not end by itself",
    THOUGHT: "thinking without an answer",
    CALLED: "called a tool instead of answering",
}
LOCAL = "local:"
#: Parts of a request that only we set; ``--send`` must not.
RESERVED = (
    *("model", "messages", "temperature", "max_tokens", "max_completion_tokens", "n", "seed", "stream"),
    "stream_options",
)
BATCH_ACTIONS = ("submit", "collect")
RESUME_HINT = "every reply is stored: run the same command again to go on"
_ENDPOINT_ONLY = (
    *("base_url", "api_key_file", "rpm", "tpm", "max_requests", "max_cost"),
    *("price_in", "price_out", "batch"),
)


class ModelId(TypedDict):
    """Which model answers, as manifests record it: without a key, and without paths of this machine.

    ``base_url`` is there for an endpoint's model, ``sha256`` for a local one.
    """

    model: str
    base_url: NotRequired[str]
    sha256: NotRequired[str]


@dataclass(frozen=True)
class TeacherOptions:
    """The settings for a teacher (or a judge): a model's name at an endpoint, or ``local:PATH``.

    Without ``api_key_env`` the key is that of $OPENAI_API_KEY at OpenAI's own host, and there is none anywhere else.
    ``send`` goes into every request unchanged; prices are per million tokens; ``timeout`` is in seconds; ``batch`` is
    one of `BATCH_ACTIONS` if the endpoint's Batch API is used (`llm.batch_api`). ``limit``: only so many rows, or
    articles, of a task are asked about (`llm.asked_rows`). With a ``ledger`` (a file, see `llm.ledger`),
    ``max_requests`` and ``max_cost`` hold for all processes that share it, not for this one alone.
    """

    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_file: Path | None = None
    samples: int = 8
    at_once: int = 1
    temperature: float = 1.0
    max_tokens: int | None = None
    send: dict[str, Json] = field(default_factory=dict)
    questions: int = 100
    resample: bool = False
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int = 64
    max_requests: int | None = None
    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    timeout: float = 600.0
    batch: str | None = None
    limit: int | None = None
    ledger: Path | None = None

    @property
    def local(self) -> str | None:
        """The local model's folder or hub id; None for an endpoint's model."""
        return self.model.removeprefix(LOCAL) if self.model.startswith(LOCAL) else None

    def check(self) -> None:
        """Raise `UsageError` for options that contradict each other; needs neither a file nor the network."""
        if self.temperature == 0 and self.samples > 1:
            raise UsageError("at --temperature 0 all samples are equal", "add --samples 1, or raise the temperature")
        if self.batch is not None and self.batch not in BATCH_ACTIONS:
            raise choose("value for --batch", self.batch, BATCH_ACTIONS)
        if self.at_once > self.samples:
            raise UsageError(f"--at-once {self.at_once} is more than --samples {self.samples}")
        if self.base_url is not None and not self.base_url.strip().startswith(("http://", "https://")):
            raise UsageError("--base-url must begin with http:// or https://", "write it as https://host/v1")
        if self.base_url is not None and not _has_host(self.base_url.strip()):
            raise UsageError("--base-url names no host, or a port that is no number", "write it as https://host/v1")
        if taken := [name for name in self.send if name in RESERVED]:
            raise UsageError(f"--send {taken[0]}: sdft sets this parameter itself", f"reserved: {', '.join(RESERVED)}")
        if self.max_cost is not None and self.price_in is None and self.price_out is None:
            raise UsageError("--max-cost needs prices", "add --price-in and --price-out, per million tokens")
        given = [name for name in _ENDPOINT_ONLY if getattr(self, name) is not None]
        if self.local is not None and given:
            raise UsageError(f"--{given[0].replace('_', '-')} is for an endpoint, but the teacher is a local model")


@dataclass(frozen=True)
class Request:
    """Messages, sampling parameters, and which samples are requested, by their numbers from 0."""

    messages: list[Message]
    temperature: float
    max_tokens: int
    extra: dict[str, Json] = field(default_factory=dict)
    samples: tuple[int, ...] = (0,)

    def digest(self, model_id: ModelId) -> str:
        """Identifies model and request, whatever the samples: the key of the reply store."""
        content = {"teacher": model_id, **self.body()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def body(self) -> dict[str, Json]:
        """The part of a chat completion request that determines the reply."""
        return {
            "messages": self.messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.extra,
        }

    @classmethod
    def from_body(cls, body: dict[str, Json], samples: tuple[int, ...]) -> Request:
        """The request that has this `body`."""
        extra = {key: value for key, value in body.items() if key not in ("messages", "temperature", "max_tokens")}
        return cls(body["messages"], body["temperature"], body["max_tokens"], extra, samples)

    @property
    def stops(self) -> list[str]:
        """Texts at which a reply must end."""
        stop = self.extra.get("stop") or []
        return [stop] if isinstance(stop, str) else list(stop)


class Pending(NamedTuple):
    """A request for samples that are not stored yet, and the digest under which their replies will be."""

    digest: str
    request: Request


@dataclass(frozen=True)
class Reply:
    """One sample. Of several replies in one response, the first has the tokens of all, so that sums are right.

    Only a ``finish`` of `STOP` makes it an answer. ``text`` of a refused one says why. ``estimated``: the server has
    not counted the tokens.
    """

    text: str
    finish: str = STOP
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = field(default=False, compare=False)


@dataclass
class PromptResult:
    """What became of one prompt: the examples made, and the replies, or parts of replies, rejected, by reason.

    ``accepted_at`` is the number of the first right sample; tokens are those of all replies that were looked at;
    ``refusal`` is what the endpoint said where it refused.
    """

    examples: list[Example] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    accepted_at: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refusal: str = ""

    @property
    def accepted(self) -> int:
        """How many usable things came of it."""
        return len(self.examples)

    def add_tokens(self, replies: Sequence[Reply]) -> None:
        self.prompt_tokens += sum(r.prompt_tokens for r in replies)
        self.completion_tokens += sum(r.completion_tokens for r in replies)


Exchange = Generator[Request, list[Reply], PromptResult]
#: Called with the result of every exchange that has ended.
Callback = Callable[[PromptResult], None]


def advance(exchange: Exchange, replies: list[Reply] | None) -> Request | PromptResult:
    """Send an exchange its replies (None to start it): its next request, or its result if that was the end."""
    try:
        return next(exchange) if replies is None else exchange.send(replies)
    except StopIteration as end:
        result: PromptResult = end.value
        return result


def ending(finish_reason: str) -> str:
    """`STOP`, `LENGTH`, … for what a server calls it; `UNFINISHED` for anything that is not known to be an end."""
    return _ENDING_OF.get(finish_reason.lower().rpartition(".")[2], UNFINISHED)


def why_no_answer(reply: Reply) -> str | None:
    """Why a reply is no answer, in words that are the same for all replies of its kind; None if it may be one."""
    return _NO_ANSWERS.get(reply.finish)


def told(reply: Reply) -> str:
    """What a reply says, for people: its text if it is an answer, else why it is none."""
    reason = why_no_answer(reply)
    return (f"nothing: {reason}" + (f" ({reply.text})" if reply.text else "")) if reason else reply.text


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """``text`` up to the first of the stops in it, and whether there was one."""
    at = min((text.find(stop) for stop in stops if stop in text), default=-1)
    return (text, False) if at < 0 else (text[:at], True)


def estimate_tokens(*texts: str) -> int:
    """A high estimate of the number of tokens: a third of the UTF-8 bytes (in English it is about a quarter)."""
    return sum(-(-len(text.encode()) // 3) for text in texts)


def estimate_prompt_tokens(messages: Sequence[Message]) -> int:
    """A high estimate of a prompt's tokens, with a few per message for the chat template."""
    return sum(estimate_tokens(m["content"]) + 4 for m in messages)
