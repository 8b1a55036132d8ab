"""Which column of a file of one's own is what: told by its name, or by a few lines of TOML.

Four layouts are known by their columns (upper and lower case alike): chat ``messages``; ``prompt`` and ``completion``;
``instruction``, ``input`` and ``output``; ``question`` and ``answer``. Where names differ, TOML says so::

    prompt = "Frage"              # text, or a list of messages
    demonstration = "Antwort"     # an expert's response: text, or messages for several turns
    answer = "Zahl"               # the gold answer, for the grader
    split = "Teil"                # which rows are for train, validation, test, ood
    splits = { Probe = "test" }   # its values, where they are called otherwise
    grader = "number"             # exact, contains, choice, number, regex (with a pattern) or none

Further keys: ``messages``, ``input`` (set below the prompt), ``system``, ``context`` (which only teachers see), ``id``,
``pattern``, ``licence``, ``delimiter`` (of CSV) and ``max_new_tokens``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sdft_cli.config.tables import read_toml
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading import named_rules

#: What a column is -> the names it may have.
NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations"),
    "prompt": ("prompt", "instruction", "question", "query", "problem"),
    "input": ("input",),
    "demonstration": ("demonstration", "completion", "output", "response"),
    "answer": ("answer",),
    "system": ("system", "system_prompt"),
    "context": ("context",),
    "id": ("id",),
    "split": ("split",),
}
LAYOUTS = "messages; prompt and completion; instruction, input and output; question and answer"
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
    "ood": ("ood",),
}
SPLIT_NAMES = {name: split for split, names in _SPLITS.items() for name in names}


@dataclass(frozen=True)
class Columns:
    """The columns of a file by what they are (None: there is none), and what else its TOML says."""

    messages: str | None = None
    prompt: str | None = None
    input: str | None = None
    demonstration: str | None = None
    answer: str | None = None
    system: str | None = None
    context: str | None = None
    id: str | None = None
    split: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    grader: str | None = None
    pattern: str | None = None
    licence: str = "not stated"
    delimiter: str | None = None
    max_new_tokens: int = 1024

    @property
    def named(self) -> dict[str, str]:
        """The columns that there are, by what they are."""
        return {key: column for key in NAMES if (column := getattr(self, key)) is not None}


def read_columns(path: Path) -> Columns:
    """What a TOML file says; `UsageError` for one that cannot be read, an unknown key, a wrong value or grader."""
    if not path.is_file():
        raise UsageError(f"no file at {path}", "--columns TASK=FILE.toml: a few lines of TOML that name the columns")
    said = read_toml(path)
    for key, value in said.items():
        _check(path, key, value)
    columns = Columns(**said)
    if (columns.grader, columns.pattern) != (None, None):
        named_rules.grader(columns.grader or "regex", columns.pattern)
    return columns


def _check(path: Path, key: str, value: Any) -> None:
    keys = [f.name for f in fields(Columns)]
    if key not in keys:
        raise choose(f"key in {path.name}:", key, keys)
    kinds: dict[str, tuple[type, str]] = {"splits": (dict, "a table"), "max_new_tokens": (int, "a whole number")}
    kind, what = kinds.get(key, (str, "a text"))
    if not isinstance(value, kind) or isinstance(value, bool) or not value:
        raise UsageError(f"{path}: {key} = {value!r} is not {what}", f"keys: {', '.join(keys)}")
    if isinstance(value, dict) and (strange := [v for v in value.values() if v not in _SPLITS]):
        raise choose(f"split in {path.name}:", str(strange[0]), tuple(_SPLITS))
    if key == "delimiter" and len(str(value)) != 1:
        raise UsageError(f"{path}: delimiter = {value!r} is not one character", 'such as delimiter = ";"')


def settle(said: Columns, there: Collection[str]) -> Columns:
    """``said``, and for what it does not say the columns among ``there`` that have a usual name."""
    lower = {name.lower(): name for name in there if name not in said.named.values()}
    usual = {key: next((lower[n] for n in names if n in lower), None) for key, names in NAMES.items()}
    if said.prompt or not (said.messages or usual["messages"]):
        usual["messages"] = None
    else:
        usual["prompt"] = None
    if (said.prompt or usual["prompt"] or "").lower() != "instruction":
        usual["input"] = None  # elsewhere a column of this name may be anything
    found: dict[str, Any] = {key: column for key, column in usual.items() if getattr(said, key) is None}
    return replace(said, **found)


def split_of(value: Any, columns: Columns) -> str | None:
    """The split that a row's own word for it means; None for a word that means none."""
    word = str(value).strip()
    return columns.splits.get(word) or SPLIT_NAMES.get(word.lower())
