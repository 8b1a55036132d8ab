"""Columns of a user's file: which one is the prompt, the demonstration, the answer, …, as the user names them.

Common layouts are recognized by their column names (`rows.layouts`). Other names are given in TOML, or in a flag
(``--columns 'prompt=Frage,answer=Zahl'``)::

    prompt = "Frage"              # text, or a list of messages
    demonstration = "Antwort"     # an expert's response: text, or messages for several turns
    answer = "Zahl"               # the gold answer, for the grader
    split = "Teil"                # train, validation, test or ood
    splits = { Probe = "test" }   # values of that column with other names
    grader = "number"             # a grader by its name; regex goes with a pattern

`KEYS` lists all keys and what they are for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sdft_cli.config import json_files
from sdft_cli.config.toml_tables import read_toml
from sdft_cli.data.split_names import Ambiguous, split_of_name
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading import named_rules
from sdft_cli.grading.json_values import check_schema
from sdft_cli.grading.sql_text import check_dialect
from sdft_cli.types import AUTO, Json, NewTokens

#: What a column may be for. Of a role with several columns, each is one option, or a part of the passage.
ROLES: dict[str, str] = {
    "messages": "a conversation",
    "prompt": "what is asked: text or messages",
    "input": "appended to the prompt",
    "passage": "a text that the question is about, put before it",
    "choices": "the options of a question: one column with a list, or one column for each",
    "demonstration": "an expert's response: text or messages",
    "rejected": "a response that is not wanted, which is never used",
    "answer": "the gold answer, for the grader; of multiple choice a letter, a number or the option's text",
    "history": "earlier turns: pairs of what was asked and what was answered",
    "system": "a system text",
    "tools": "the functions that the assistant may call",
    "context": "a text that only the teacher sees",
    "text": "raw text, for a corpus",
    "title": "the title of raw text",
    "id": "names the row",
    "split": "train, validation, test or ood",
    "database": "an SQLite database for the grader sql: a file, or the SQL text of its tables",
    "schema": "a JSON Schema, or the tables of a database, for the graders json and sql",
    "tests": "unit tests, for the grader code",
    "setup": "Python that is run before these tests",
    "entry_point": "the function that check(candidate) among these tests is called with",
}
#: Settings beside the columns.
SETTINGS: dict[str, str] = {
    "template": "the prompt, with {column} in braces",
    "ignore": "columns that are left out on purpose",
    "first_index": "0 or 1: how options are counted where the answer is a number",
    "labels": "the names of labels that are stored as numbers from 0",
    "splits": "values of the split column with other names",
    "grader": "a grader by its name",
    "pattern": "of the grader regex",
    "rubric": "what a judge has to look at",
    "dialect": "of SQL, for the grader sql: sqlite, mysql, postgres, …",
    "json_schema": "a JSON Schema for all rows, for the grader json: a table, or a file of JSON",
    "licence": "of the source",
    "delimiter": "of CSV",
    "sheet": "of an Excel file",
    "max_new_tokens": "the longest completion, in training and when it is scored; auto, unless given: as long as the "
    "demonstrations suggest",
    "accept": "the least value (up to 1) with which a teacher's reply becomes a demonstration; 1 unless given",
}
KEYS = {**ROLES, **SETTINGS}
#: Roles that several columns may have.
_SEVERAL = ("choices", "passage")
#: Kept in a row's ``meta`` under their names, for the graders that read them.
GRADER_ROLES = ("database", "schema", "tests", "setup", "entry_point")
SPLIT_NAMES = ("train", "validation", "test", "ood")
Named = str | tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """The columns of a file by what they are for (None: there is none), and the other settings; see `KEYS`."""

    messages: str | None = None
    prompt: str | None = None
    input: str | None = None
    passage: Named | None = None
    choices: Named | None = None
    demonstration: str | None = None
    rejected: str | None = None
    answer: str | None = None
    history: str | None = None
    system: str | None = None
    tools: str | None = None
    context: str | None = None
    text: str | None = None
    title: str | None = None
    id: str | None = None
    split: str | None = None
    database: str | None = None
    schema: str | None = None
    tests: str | None = None
    setup: str | None = None
    entry_point: str | None = None
    further: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    ignore: tuple[str, ...] = ()
    first_index: int | None = None
    labels: tuple[str, ...] = ()
    splits: dict[str, str] = field(default_factory=dict)
    grader: str | None = None
    pattern: str | None = None
    dialect: str | None = None
    json_schema: str | dict[str, Json] | None = None
    rubric: str | None = None
    licence: str = "not stated"
    delimiter: str | None = None
    sheet: str | None = None
    max_new_tokens: NewTokens = AUTO
    accept: float | None = None

    @property
    def named(self) -> dict[str, Named]:
        """The columns that exist, by what they are for."""
        return {role: column for role in ROLES if (column := getattr(self, role)) is not None}

    @property
    def given(self) -> dict[str, Json]:
        """What is stated once for all rows, by what graders call it; raises `UsageError` for what is no such thing."""
        if self.dialect:
            check_dialect(self.dialect)
        if self.json_schema:
            check_schema(self.json_schema)
        stated = {"dialect": self.dialect, "schema": self.json_schema}
        return {key: value for key, value in stated.items() if value}

    @property
    def names(self) -> list[str]:
        """Every column that is named, also in the template."""
        listed = [name for column in self.named.values() for name in ([column] if isinstance(column, str) else column)]
        used = [*listed, *self.further.values(), *self.ignore]
        return [*used, *(slots(self.template) if self.template else [])]

    def settings(self) -> dict[str, Json]:
        """What is not as usual, as JSON: for the manifest."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        usual = Columns()
        kept = {key: value for key, value in given.items() if value != getattr(usual, key)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def slots(template: str) -> list[str]:
    """The columns that a template names in braces."""
    return re.findall(r"\{([^{}]+)\}", template)


# --- in TOML ----------------------------------------------------------------------------------------------------------


def read_columns(path: Path) -> Columns:
    """The columns that a TOML file names; `UsageError` if it cannot be read, or for a wrong key, value or grader."""
    if not path.is_file():
        raise UsageError(f"no file at {path}", "--columns TASK=FILE.toml: a few lines of TOML that name the columns")
    return columns_of(read_toml(path), str(path))


def columns_of(settings: Mapping[str, Json], where: str) -> Columns:
    """The columns of a table of settings that was read from ``where``; raises `UsageError`."""
    own = settings.get("further") or {key: settings[key] for key in _further(settings) if key in settings}
    checked = {key: _checked(where, key, value) for key, value in settings.items() if key not in {*own, "further"}}
    if own:
        checked["further"] = {key: _checked(where, "prompt", column) for key, column in own.items()}
    if isinstance(file := checked.get("json_schema"), str):
        checked["json_schema"] = _schema_in(Path(where).parent / file if where.endswith(".toml") else Path(file))
    columns = Columns(**checked)
    if (columns.grader, columns.pattern) != (None, None):
        named = named_rules.grader(columns.grader or "regex", columns.pattern, columns.given)
        if named.ready:
            named.ready()
    if columns.rubric and columns.grader == "none":
        raise UsageError(f'{where}: a rubric is for a judge, and grader = "none" has nothing scored', "leave one out")
    return columns


def _further(settings: Mapping[str, Json]) -> list[str]:
    """Columns of the named grader, a plug-in's, that no shipped one reads."""
    grader = named_rules.GRADERS.get(str(settings.get("grader")))
    return [name for name in grader.columns if name not in KEYS] if grader else []


def _schema_in(file: Path) -> dict[str, Json]:
    """The JSON Schema in a file."""
    schema: Json = json_files.read(file, Json, "json_schema names a file with a JSON Schema")
    if not isinstance(schema, dict):
        raise UsageError(f"{file} holds no JSON object", "json_schema names a file with a JSON Schema")
    return schema


def _checked(where: str, key: str, given: Json) -> Json:
    value: Any = given
    if key not in KEYS:
        raise choose(f"key in {Path(where).name if where.endswith('.toml') else where}:", key, tuple(KEYS))
    if key in (*_SEVERAL, "labels", "ignore"):
        return _texts(where, key, value)
    kinds: dict[str, tuple[Any, str]] = {
        "splits": (dict, "a table"),
        "json_schema": (dict, "a table") if isinstance(value, dict) else (str, "the name of a file"),
        "max_new_tokens": (int, "a whole number, or auto") if value != AUTO else (str, "text"),
        "first_index": (int, "0 or 1"),
        "accept": (int | float, "a number"),
    }
    kind, what = kinds.get(key, (str, "text"))
    if not isinstance(given, kind) or isinstance(given, bool) or (not given and key != "first_index"):
        raise UsageError(f"{where}: {key} = {value!r} is not {what}", f"{key}: {KEYS[key]}; keys: {', '.join(KEYS)}")
    if key == "splits" and (unknown := [v for v in value.values() if v not in SPLIT_NAMES]):
        raise choose(f"split in {where}:", str(unknown[0]), SPLIT_NAMES)
    if key == "delimiter" and len(str(value)) != 1:
        raise UsageError(f"{where}: delimiter = {value!r} is not one character", 'such as delimiter = ";"')
    if key == "first_index" and value not in (0, 1):
        raise UsageError(f"{where}: first_index = {value!r} is not 0 or 1", f"first_index: {KEYS[key]}")
    if key == "accept" and not 0 < float(value) <= 1:
        raise UsageError(f"{where}: accept = {value!r} is not above 0 and at most 1", "such as accept = 0.5")
    if key == "max_new_tokens" and value != AUTO and int(value) < 1:
        raise UsageError(f"{where}: max_new_tokens = {value!r} is not positive", "such as max_new_tokens = 256")
    if key == "template" and not slots(str(value)):
        hint = 'such as template = "{context}\\n\\nQuestion: {question}", with the names of columns'
        raise UsageError(f"{where}: the template names no column", hint)
    return value


def _texts(where: str, key: str, value: Json) -> Json:
    """One text, or several as a tuple."""
    if isinstance(value, str) and value and key != "labels":
        return value if key in _SEVERAL else (value,)
    least = 1 if key == "ignore" else 2
    if isinstance(value, list) and len(value) >= least and all(isinstance(each, str) and each for each in value):
        return tuple(value)
    what = "a list of at least two names" if key == "labels" else "one column or a list of columns"
    raise UsageError(f"{where}: {key} = {value!r} is not {what}", f"{key}: {KEYS[key]}")


# --- splits -----------------------------------------------------------------------------------------------------------


def split_of(value: Json, columns: Columns) -> str | None:
    """The split that a value of the split column means (`split_names.EVAL` for ``eval``); None if it means none, or
    two."""
    word = str(value).strip()
    try:
        return columns.splits.get(word) or split_of_name(word)
    except Ambiguous:
        return None
