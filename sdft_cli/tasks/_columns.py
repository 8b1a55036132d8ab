"""Columns of a user's file: which one is the prompt, the demonstration, the answer, …, by name or by a TOML file.

Four layouts are recognized by their column names, in any case: chat ``messages``; ``prompt`` and ``completion``;
``instruction``, ``input`` and ``output``; ``question`` and ``answer``. Other names are given in TOML::

    prompt = "Frage"              # text, or a list of messages
    demonstration = "Antwort"     # an expert's response: text, or messages for several turns
    answer = "Zahl"               # the gold answer, for the grader
    split = "Teil"                # train, validation, test or ood
    splits = { Probe = "test" }   # values of that column with other names
    grader = "number"             # exact, contains, choice, number, regex (with a pattern), judge or none

Further keys: ``messages``, ``input`` (appended to the prompt), ``system``, ``tools`` (which the assistant may call: a
list, or the JSON text of one), ``context`` (which only the teacher sees), ``id``, ``pattern``, ``rubric`` (what a judge
has to look at), ``licence``, ``delimiter`` (of CSV), ``sheet`` (of an Excel file) and ``max_new_tokens``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path

from sdft_cli.config.toml_tables import read_toml
from sdft_cli.data.split_names import Ambiguous, split_of_name
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading import named_rules
from sdft_cli.types import Json

#: What a column is for -> the names by which it is recognized.
NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations"),
    "prompt": ("prompt", "instruction", "question", "query", "problem"),
    "input": ("input",),
    "demonstration": ("demonstration", "completion", "output", "response"),
    "answer": ("answer",),
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
    "context": ("context",),
    "id": ("id",),
    "split": ("split",),
}
LAYOUTS = "messages; prompt and completion; instruction, input and output; question and answer"
SPLIT_NAMES = ("train", "validation", "test", "ood")


@dataclass(frozen=True)
class Columns:
    """The columns of a file by what they are for (None: there is none), and the other settings of its TOML."""

    messages: str | None = None
    prompt: str | None = None
    input: str | None = None
    demonstration: str | None = None
    answer: str | None = None
    system: str | None = None
    tools: str | None = None
    context: str | None = None
    id: str | None = None
    split: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    grader: str | None = None
    pattern: str | None = None
    rubric: str | None = None
    licence: str = "not stated"
    delimiter: str | None = None
    sheet: str | None = None
    max_new_tokens: int = 1024

    @property
    def named(self) -> dict[str, str]:
        """The columns that exist, by what they are for."""
        return {key: column for key in NAMES if (column := getattr(self, key)) is not None}


def read_columns(path: Path) -> Columns:
    """The columns that a TOML file names; `UsageError` if it cannot be read, or for a wrong key, value or grader."""
    if not path.is_file():
        raise UsageError(f"no file at {path}", "--columns TASK=FILE.toml: a few lines of TOML that name the columns")
    settings = read_toml(path)
    for key, value in settings.items():
        _check(path, key, value)
    columns = Columns(**settings)
    if (columns.grader, columns.pattern) != (None, None):
        named_rules.grader(columns.grader or "regex", columns.pattern)
    if columns.rubric and columns.grader == "none":
        raise UsageError(f'{path}: a rubric is for a judge, and grader = "none" has nothing scored', "leave one out")
    return columns


def _check(path: Path, key: str, value: Json) -> None:
    keys = [f.name for f in fields(Columns)]
    if key not in keys:
        raise choose(f"key in {path.name}:", key, keys)
    kinds: dict[str, tuple[type, str]] = {"splits": (dict, "a table"), "max_new_tokens": (int, "a whole number")}
    kind, what = kinds.get(key, (str, "text"))
    if not isinstance(value, kind) or isinstance(value, bool) or not value:
        raise UsageError(f"{path}: {key} = {value!r} is not {what}", f"keys: {', '.join(keys)}")
    if isinstance(value, dict) and (unknown := [v for v in value.values() if v not in SPLIT_NAMES]):
        raise choose(f"split in {path.name}:", str(unknown[0]), SPLIT_NAMES)
    if key == "delimiter" and len(str(value)) != 1:
        raise UsageError(f"{path}: delimiter = {value!r} is not one character", 'such as delimiter = ";"')


def complete(columns: Columns, present: Collection[str]) -> Columns:
    """``columns``, with the columns among ``present`` that have a usual name wherever none is named."""
    by_lower = {name.lower(): name for name in present if name not in columns.named.values()}
    usual = {key: next((by_lower[n] for n in names if n in by_lower), None) for key, names in NAMES.items()}
    if columns.prompt or not (columns.messages or usual["messages"]):
        usual["messages"] = None
    else:
        usual["prompt"] = None
    if (columns.prompt or usual["prompt"] or "").lower() != "instruction":
        usual["input"] = None  # in other layouts a column of this name may be anything
    return Columns(**{**vars(columns), **usual, **columns.named})


def split_of(value: Json, columns: Columns) -> str | None:
    """The split that a value of the split column means (`split_names.EVAL` for ``eval``); None if it means none, or
    two."""
    word = str(value).strip()
    try:
        return columns.splits.get(word) or split_of_name(word)
    except Ambiguous:
        return None
