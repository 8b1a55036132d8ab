"""The nouns that every folder shares: example, score, task, suite, rollout. Plain data, no IO, no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from sdft_cli.errors import UsageError
from sdft_cli.messages import ROLES, Message, read_demonstration, read_messages, read_tools

__all__ = ["ROLES", "Message"]  # messages are part of an example: they may be imported from here too

#: JSON whose shape only its reader knows (a gold answer, a source's row, a table of settings); never a record of ours.
Json = Any
#: As long as the demonstrations suggest (`data.completion_limits`).
AUTO: Final = "auto"
#: The longest completion, in tokens.
NewTokens = int | Literal["auto"]
#: Where neither a task nor its demonstrations say how long completions may be.
NEW_TOKENS = 1024
SPLITS = ("train", "validation", "test", "ood", "corpus")
_FIELDS = ("id", "prompt", "tools", "demonstration", "context", "answer", "text", "meta")


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset; the method decides which fields it needs.

    ``prompt``: messages that end with a user's turn, or a tool's. ``demonstration``: an expert's response, as text or
    (several turns, tool calls, reasoning) as messages. ``context``: an article or the like. ``answer``: the gold
    answer, any JSON. ``text``: the raw text of a corpus row. ``tools``: the functions that the assistant may call, JSON
    schemas in the OpenAI form.
    """

    id: str
    prompt: list[Message]
    demonstration: str | list[Message] | None = None
    context: str | None = None
    answer: Json = None
    text: str | None = None
    meta: dict[str, Json] = field(default_factory=dict)
    tools: list[Json] | None = None

    def to_dict(self) -> dict[str, Json]:
        """The row as JSON, without its empty fields."""
        row = {name: getattr(self, name) for name in _FIELDS}
        return {k: v for k, v in row.items() if v is not None and v != {} and (v != [] or k == "prompt")}

    @classmethod
    def from_dict(cls, row: object, where: str) -> Example:
        """Parse one JSON row; raises `UsageError` that names ``where`` (file and line) and the field."""
        if not isinstance(row, dict):
            raise UsageError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
        if unknown := set(row) - set(_FIELDS):
            raise UsageError(f"{where}: unknown field {sorted(unknown)[0]!r}", f"fields: {', '.join(_FIELDS)}")
        if not isinstance(row.get("id"), str) or not row["id"]:
            raise UsageError(f"{where}: 'id' must be a non-empty string")
        row = {**row, "prompt": read_messages(row.get("prompt", []), f"{where}: 'prompt'")}
        demonstration = row.get("demonstration")
        if isinstance(demonstration, list):
            row["demonstration"] = read_demonstration(demonstration, f"{where}: 'demonstration'")
        elif demonstration is not None and not isinstance(demonstration, str):
            raise UsageError(f"{where}: 'demonstration' must be text or a list of messages")
        if row.get("tools") is not None:
            row["tools"] = read_tools(row["tools"], f"{where}: 'tools'") or None
        for name in ("context", "text"):
            if row.get(name) is not None and not isinstance(row[name], str):
                raise UsageError(f"{where}: {name!r} must be text")
        if not row.get("prompt") and not row.get("text"):
            raise UsageError(f"{where}: a row needs a 'prompt' (or a 'text', for a corpus)")
        if not isinstance(row.get("meta", {}), dict):
            raise UsageError(f"{where}: 'meta' must be an object")
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Score:
    """A grader's verdict on one completion. A ``value`` of None means unscored, which is not the same as wrong."""

    value: float | None
    extracted: str | None = None
    why: str = ""
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was dropped: its file and line, the reason, and a short detail."""

    where: str
    reason: str
    detail: str = ""


@dataclass
class Prepared:
    """What a task makes of raw sources: examples by split, and every row it had to drop.

    ``drawn``: the training rows were chosen by our seed, not by the source. ``rendered``: how many training rows have
    nothing but their gold answer as the demonstration. ``files``: those that rows' ``meta`` name,
    such as databases, by their place in the dataset's folder. ``sources``: every file of the sources, read or left out,
    as the manifest lists it (`data.manifest.SourceFile`).
    """

    splits: dict[str, list[Example]]
    dropped: list[Dropped] = field(default_factory=list)
    source: str = ""
    licence: str = ""
    notes: list[str] = field(default_factory=list)
    drawn: bool = False
    rendered: int = 0
    files: dict[str, Path] = field(default_factory=dict)
    sources: list[dict[str, Json]] = field(default_factory=list)


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare.

    ``demonstrations='answer'`` uses the gold answer as the demonstration. ``on_overlap``: what to do with a training
    row whose question is also in the test set, where the source fixes the splits (``error``, or ``drop`` the training
    row). ``merge_system``: system texts are put before the user's, for models without a system role.
    ``on_unwinnable``: rows that get no credit for their own gold answer are kept, left out (``drop``), or an error.
    """

    demonstrations: str = "source"
    seed: int = 0
    world: int = 0
    on_overlap: str = "error"
    merge_system: bool = False
    on_unwinnable: str = "keep"


@dataclass(frozen=True)
class Rubric:
    """How a judge grades: its instructions, and the (strict, lenient) score of each one-word verdict."""

    instructions: str
    verdicts: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class HubSource:
    """Where a task's public data is on the Hugging Face hub: what ``sdft prepare --source hub`` reads.

    ``datasets``: as ``--source`` takes them (``hf:ORG/NAME``). ``origin``: what they are, for people. ``arrange``: what
    the task takes of all their rows together, and notes that say what it leaves out; None: all of it, by split.
    """

    datasets: tuple[str, ...]
    origin: str
    licence: str
    arrange: Callable[[list[dict[str, Json]]], tuple[list[dict[str, Json]], list[str]]] | None = None


@dataclass(frozen=True)
class Task:
    """One skill: how sources become examples, and how a completion is graded.

    ``prepare`` takes the source paths (none if the task generates its own rows) and may raise `UsageError`. ``grade``
    takes the text of a completion and its example. ``max_new_tokens``: how long a completion may be, in training and
    when it is scored; ``auto`` takes it from the demonstrations. ``options``: from how many answers each question has
    to choose, if that is so. ``question``: the part of a prompt that distinguishes rows which share a long preamble
    (None: the whole prompt). ``grader``: for a task that is nothing but a dataset, the rule that its manifest stores
    (`rows.user_rows`), and ``columns`` what its user said of the columns. ``rubric``: the instructions for a judge.
    ``render``: a gold answer as a completion that should be right. ``accept``: the least value with which a teacher's
    reply becomes a demonstration; None where only the user can say that, as values are shares. ``hub``: where its data
    is on the Hugging Face hub.
    """

    name: str
    summary: str
    prepare: Callable[[list[Path], PrepareOptions], Prepared]
    grade: Callable[[str, Example], Score]
    suite: str = "new"
    max_new_tokens: NewTokens = NEW_TOKENS
    needs_source: bool = True
    source_hint: str = ""
    note: str = ""
    suffixes: tuple[str, ...] = ()
    question: Callable[[Example], str] | None = None
    grader: dict[str, str] | None = None
    columns: dict[str, Json] | None = None
    rubric: Rubric | None = None
    render: Callable[[Json], str] | None = None
    accept: float | None = 1.0
    options: int | None = None
    hub: HubSource | None = None


@dataclass(frozen=True)
class Suite:
    """A fixed set of graded examples in named parts; its accuracy is the unweighted mean over the parts."""

    name: str
    summary: str
    parts: Callable[[], dict[str, list[Example]]]
    grade: Callable[[str, Example], Score]
    max_new_tokens: int = 1024
    #: similar prompts that are not items of the suite, for methods that rehearse on general prompts
    general: Callable[[], list[Example]] | None = None


#: The settings that a battery is measured under; `config.recipe.Evaluation` for ours.
S_contra = TypeVar("S_contra", contravariant=True)


class Battery(ABC, Generic[S_contra]):
    """A suite that another library measures, part by part: its items are more than prompts with completions.

    Its accuracy is the unweighted mean over the parts.
    """

    name: str
    summary: str
    general: Callable[[], list[Example]] | None = None

    @abstractmethod
    def parts(self, settings: S_contra) -> list[str]:
        """The names of the parts to measure; `UsageError` if there are none."""

    @abstractmethod
    def note(self, settings: S_contra) -> str:
        """A caveat for readers of the mean, such as what it leaves out."""

    @abstractmethod
    def settings(self, settings: S_contra, part: str | None = None) -> dict[str, Json]:
        """Everything that two measurements (of one ``part``, or of all) must share to be comparable, without loading a
        model; `UsageError` if something required is missing."""

    @abstractmethod
    def measure(self, engine: Any, settings: S_contra, part: str) -> tuple[list[dict[str, Json]], dict[str, Json]]:
        """The records of one part, each with the part's name, and whatever its summary has beyond them.

        ``engine`` is a `models.engine.Engine`, of which a battery may use no more than the ``policy``.
        """


@dataclass
class Rollout:
    """One sampled completion. ``logprobs`` are the sampler's, in nats, after temperature and truncation."""

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    finish: str
    index: int = 0
    view: str = "student"
    version: int = 0
