"""What a teacher is asked and what it answers: plain data, shared by every teacher, be it a server or a local model.

Work on one prompt is a *pursuit*: a generator that yields a `Request`, is sent that request's replies, and returns an
`Outcome`. It knows neither network nor disk nor model, so a server may have many of them open at once, a local model
may answer them in batches, and a killed run goes on by walking through them again on stored replies.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sdft_cli.types import Example, Message

#: How a reply ended: the model was done, the limit was reached, or the endpoint will not answer this prompt at all.
STOP, LENGTH, REFUSED = "stop", "length", "refused"
LOCAL = "local:"
#: Parts of a request that are ours to set; ``--send`` must leave them alone.
OURS = ("model", "messages", "temperature", "max_tokens", "max_completion_tokens", "n", "seed", "stream")


@dataclass(frozen=True)
class TeacherOptions:
    """What the user said about the teacher: a model's name at an endpoint, or ``local:PATH``.

    ``send`` goes into every request as it is; prices are for a million tokens; ``timeout`` is in seconds; ``batch`` is
    "submit" or "collect" where the endpoint's Batch API is used (see `batch`).
    """

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    api_key_file: Path | None = None
    samples: int = 8
    at_once: int = 1
    temperature: float = 1.0
    max_tokens: int | None = None
    send: dict[str, Any] = field(default_factory=dict)
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

    @property
    def local(self) -> str | None:
        """The local model's folder or hub id; None for an endpoint's model."""
        return self.model.removeprefix(LOCAL) if self.model.startswith(LOCAL) else None


@dataclass(frozen=True)
class Request:
    """Messages, how to sample, and which samples are wanted by their numbers from 0 (one body may ask for several)."""

    messages: list[Message]
    temperature: float
    max_tokens: int
    more: dict[str, Any] = field(default_factory=dict)
    samples: tuple[int, ...] = (0,)

    def digest(self, teacher: dict[str, Any]) -> str:
        """Names what is asked of whom (see `LanguageModel.named`), the sample's number apart: the store's key."""
        said = {"teacher": teacher, **self.body()}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def body(self) -> dict[str, Any]:
        """The part of a chat completion's request that decides about the reply."""
        return {
            "messages": self.messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.more,
        }

    @classmethod
    def of(cls, body: dict[str, Any], samples: tuple[int, ...]) -> Request:
        """The request whose `body` this is."""
        more = {key: value for key, value in body.items() if key not in ("messages", "temperature", "max_tokens")}
        return cls(body["messages"], body["temperature"], body["max_tokens"], more, samples)

    @property
    def stops(self) -> list[str]:
        """Texts at which a reply must end."""
        stop = self.more.get("stop") or []
        return [stop] if isinstance(stop, str) else list(stop)


@dataclass(frozen=True)
class Reply:
    """One sample. With several choices in one answer the first carries the tokens of all, so that sums are right."""

    text: str
    finish: str = STOP
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Outcome:
    """What became of one prompt: the rows it gave, and the replies or parts of replies that were not kept, by reason.

    ``accepted_at`` is the number of the first sample that was right; ``tokens`` are those of the replies it used.
    """

    examples: list[Example] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    accepted_at: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, replies: Sequence[Reply]) -> None:
        """Add the replies' tokens."""
        self.prompt_tokens += sum(r.prompt_tokens for r in replies)
        self.completion_tokens += sum(r.completion_tokens for r in replies)


Pursuit = Generator[Request, list[Reply], Outcome]
#: Told of every pursuit that has come to its end.
Told = Callable[[Outcome], None]


class LanguageModel(Protocol):
    """Whoever answers requests. ``named`` is what a manifest says of it: no key and no path of this machine."""

    named: dict[str, Any]

    def run(self, pursuits: Sequence[Pursuit], told: Told) -> list[Outcome]:
        """The outcomes in the order of ``pursuits``; raises `SdftError` where one of them could not be ended."""
        ...


def step(pursuit: Pursuit, replies: list[Reply] | None) -> Request | Outcome:
    """Send a pursuit its replies (None to begin it): its next request, or its outcome if that was the end."""
    try:
        return next(pursuit) if replies is None else pursuit.send(replies)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """``text`` up to the first of the stops in it, and whether one was."""
    at = min((text.find(stop) for stop in stops if stop in text), default=-1)
    return (text, False) if at < 0 else (text[:at], True)


def rough_tokens(*texts: str) -> int:
    """About how many tokens, on the high side: a third of the UTF-8 bytes (English has about a quarter)."""
    return sum(-(-len(text.encode()) // 3) for text in texts)


def prompt_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a prompt has, a few a message for its frame included."""
    return sum(rough_tokens(m["content"]) + 4 for m in messages)
