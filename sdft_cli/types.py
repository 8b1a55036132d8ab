"""The nouns that cross floors: example, score, task, suite, rollout. Plain data, no IO, no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdft_cli.errors import UsageError

#: A JSON value of a form that only its reader knows (a gold answer, a source's own record); never a record of ours.
Json = Any
#: One chat message: ``{"role": "system" | "user" | "assistant" | "tool", "content": str}``.
Message = dict[str, str]
ROLES = ("system", "user", "assistant", "tool")
SPLITS = ("train", "validation", "test", "ood", "corpus")
_FIELDS = ("id", "prompt", "demonstration", "context", "answer", "text", "meta")


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset. Which fields are needed is the method's to say.

    ``prompt`` is a list of messages that ends with the user's turn; ``demonstration`` is an expert's
    response (text, or messages for several turns); ``context`` an article or the like; ``answer`` the
    gold answer (any JSON); ``text`` raw text for a corpus row.
    """

    id: str
    prompt: list[Message]
    demonstration: str | list[Message] | None = None
    context: str | None = None
    answer: Any = None
    text: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON row; fields without a value are left out."""
        row = {name: getattr(self, name) for name in _FIELDS}
        return {k: v for k, v in row.items() if v is not None and v != {} and (v != [] or k == "prompt")}

    @classmethod
    def from_dict(cls, row: Any, where: str) -> Example:
        """Parse one JSON row; raises `UsageError` that names ``where`` (file and line) and the field."""
        if not isinstance(row, dict):
            raise UsageError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
        if unknown := set(row) - set(_FIELDS):
            raise UsageError(f"{where}: unknown field {sorted(unknown)[0]!r}", f"fields: {', '.join(_FIELDS)}")
        if not isinstance(row.get("id"), str) or not row["id"]:
            raise UsageError(f"{where}: 'id' must be a non-empty string")
        _check_messages(row.get("prompt", []), f"{where}: 'prompt'")
        demonstration = row.get("demonstration")
        if isinstance(demonstration, list):
            _check_messages(demonstration, f"{where}: 'demonstration'")
        elif demonstration is not None and not isinstance(demonstration, str):
            raise UsageError(f"{where}: 'demonstration' must be text or a list of messages")
        for name in ("context", "text"):
            if row.get(name) is not None and not isinstance(row[name], str):
                raise UsageError(f"{where}: {name!r} must be text")
        if not row.get("prompt") and not row.get("text"):
            raise UsageError(f"{where}: a row needs a 'prompt' (or a 'text', for a corpus)")
        if not isinstance(row.get("meta", {}), dict):
            raise UsageError(f"{where}: 'meta' must be an object")
        return cls(**{"prompt": [], **row})


def _check_messages(value: Any, where: str) -> None:
    if not isinstance(value, list):
        raise UsageError(f"{where} must be a list of messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise UsageError(f"{where}: every message needs a 'role' and a text 'content'")
        if message.get("role") not in ROLES:
            raise UsageError(f"{where}: unknown role {message.get('role')!r}", f"roles: {', '.join(ROLES)}")


@dataclass(frozen=True)
class Score:
    """What a grader says of one completion. ``value`` None means unscored, which is not wrong."""

    value: float | None
    extracted: str | None = None
    why: str = ""
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Dropped:
    """A row that was left out: where it stood, why, and a short detail."""

    where: str
    reason: str
    detail: str = ""


@dataclass
class Prepared:
    """What a task makes of raw sources: examples a split, and every row it had to drop.

    ``drawn`` says that it was not the sources but our seed that put rows into ``train``.
    """

    splits: dict[str, list[Example]]
    dropped: list[Dropped] = field(default_factory=list)
    source: str = ""
    licence: str = ""
    notes: list[str] = field(default_factory=list)
    drawn: bool = False


@dataclass(frozen=True)
class PrepareOptions:
    """What the user said about preparing.

    ``demonstrations='answer'`` renders the gold answer as one. ``on_overlap`` is what becomes of a training row that
    asks what a test row asks, where the sources say which is which: ``error``, or ``drop`` the training row.
    """

    demonstrations: str = "source"
    seed: int = 0
    world: int = 0
    on_overlap: str = "error"


@dataclass(frozen=True)
class Rubric:
    """How a judge grades: what it is told, and the (strict, lenient) score of each one-word verdict."""

    instructions: str
    verdicts: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Task:
    """One skill: how sources become examples, and how a completion is graded.

    ``prepare`` gets the given source paths (none for a task that makes its own rows) and may raise
    `UsageError`; ``grade`` gets the completion's text and its example. ``question`` is what tells its rows apart, for
    prompts that share a long preamble (None: the whole prompt). ``grader`` is kept in the manifest by a task that is
    made of data, to make it again from there (`tasks._user_rows`). ``rubric`` is for a judge, where one is asked.
    """

    name: str
    summary: str
    prepare: Callable[[list[Path], PrepareOptions], Prepared]
    grade: Callable[[str, Example], Score]
    suite: str = "new"
    max_new_tokens: int = 1024
    needs_source: bool = True
    source_hint: str = ""
    note: str = ""
    suffixes: tuple[str, ...] = ()
    question: Callable[[Example], str] | None = None
    grader: dict[str, Any] | None = None
    rubric: Rubric | None = None


@dataclass(frozen=True)
class Suite:
    """A fixed set of graded examples by part; its accuracy is the plain mean over parts."""

    name: str
    summary: str
    parts: Callable[[], dict[str, list[Example]]]
    grade: Callable[[str, Example], Score]
    max_new_tokens: int = 1024
    #: prompts of the same kind that are none of the suite's items: what re-invocation samples on
    general: Callable[[], list[Example]] | None = None


class Battery(ABC):
    """A suite that another library measures, part by part: its items are not prompts with completions alone.

    What is called ``settings`` here is a `recipe.Evaluation`, an engine is that of `scoring` with its ``policy``, and
    the accuracy is the plain mean over parts.
    """

    name: str
    summary: str
    general: Callable[[], list[Example]] | None = None

    @abstractmethod
    def parts(self, settings: Any) -> list[str]:
        """The names of what would be measured; `UsageError` where nothing would be."""

    @abstractmethod
    def note(self, settings: Any) -> str:
        """What a reader must know of the mean, such as what is left out of it."""

    @abstractmethod
    def settings(self, settings: Any, part: str | None = None) -> dict[str, Any]:
        """Everything in which two measurements (of one ``part``, or of all) must agree to be compared, found without a
        model; `UsageError` where something that is needed is not there."""

    @abstractmethod
    def measure(self, engine: Any, settings: Any, part: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The records of one part (each names it), and what its summary holds besides what follows from them."""


@dataclass
class Rollout:
    """One sampled completion. ``logprobs`` are the sampler's own, temperature and truncation applied (nats)."""

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    finish: str
    index: int = 0
    view: str = "student"
    version: int = 0
