"""Tasks made of data: rows of one's own in any usual layout, graded by a rule that a word names.

`read` makes a task of files for `sdft prepare`. The rule is kept in the dataset's manifest, and `find` makes the task
again from there, so that a prepared dataset trains and evaluates by its name. Which column is what: `tasks._columns`.

A row needs a demonstration or a gold answer. A row with nothing but an answer shows it as its demonstration, unless a
teacher is to write one; a row with nothing but a demonstration is graded by it. The split is what the flag says
(``--source mytask.test=FILE``), else a column, else the file's name (``test.jsonl``). Other rows are for training where
there are test rows, and split by seed where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sdft_cli.data.dataset import MANIFEST, read_manifest
from sdft_cli.data.readers import RawRow, source_files
from sdft_cli.errors import choose
from sdft_cli.grading import named_rules
from sdft_cli.grading.rubrics import KNOWLEDGE
from sdft_cli.tasks._columns import LAYOUTS, SPLIT_NAMES, Columns, settle, split_of
from sdft_cli.tasks._conversations import answer_of, demonstration_of, prompt_of
from sdft_cli.tasks._sources import BadRow, Format, Found, Gathered, gather_file, need_rows, prompt_key
from sdft_cli.tasks._splits import arrange
from sdft_cli.types import Dropped, Example, Prepared, PrepareOptions, Score, Task

Files = dict[str | None, list[Path]]
_FORMAT = f"{LAYOUTS}; other columns where --columns TASK=FILE.toml names them"


def read(name: str, files: Files, said: Columns) -> Task:
    """The task ``name`` made of ``files`` by split (None: rows or file names say), which are read here and now.

    Raises `UsageError` for a file that cannot be read, for one without any usable row, and for a column that ``said``
    names and no row has.
    """
    rows = _Rows(name, said)
    for split, paths in files.items():
        for path in paths:
            for label, file in source_files(path):
                rows.read(label, file, split)
    rows.check()
    return _task(name, rows.grader(), said.max_new_tokens, lambda _, options: rows.prepared(options))


def find(name: str, data: Path) -> Task | None:
    """The task described by ``data/<name>/manifest.json``; None where there is none or it names no grader."""
    if not (data / name / MANIFEST).is_file():
        return None
    manifest = read_manifest(data / name)
    if not isinstance(rule := manifest.get("grader"), dict):
        return None
    most = int(manifest.get("max_new_tokens", Columns.max_new_tokens))
    rule = {"name": "none", **rule}
    said = Columns(grader=rule["name"], pattern=rule.get("pattern"), max_new_tokens=most)
    return _task(name, rule, said.max_new_tokens, lambda paths, opts: read(name, {None: paths}, said).prepare([], opts))


def names(data: Path) -> list[str]:
    """The datasets below ``data`` that are tasks of their own."""
    return [folder.name for folder in sorted(data.iterdir()) if find(folder.name, data)] if data.is_dir() else []


def _task(
    name: str, rule: dict[str, Any], max_new_tokens: int, prepare: Callable[[list[Path], PrepareOptions], Prepared]
) -> Task:
    grade = named_rules.grader(rule["name"], rule.get("pattern"))

    def graded(completion: str, example: Example) -> Score:
        return grade(completion, example.answer)

    return Task(
        name=name,
        summary=f"rows of your own, graded by {rule['name']!r}",
        prepare=prepare,
        grade=graded,
        max_new_tokens=max_new_tokens,
        note="scored by a judge alone" if rule["name"] == "none" else f"graded by {rule['name']!r}",
        grader=rule,
        rubric=KNOWLEDGE if rule["name"] == "none" else None,
    )


class _Rows:
    """All rows of one task, and what was met on the way: every column (``seen``) and those that were used."""

    def __init__(self, name: str, said: Columns):
        self.name, self.said, self.gathered = name, said, Gathered()
        self.seen: set[str] = set()
        self.used: set[str] = set()
        self.columns: dict[tuple[str, ...], Columns] = {}
        self.ids: dict[str, int] = {}

    def read(self, label: str, file: Path, split: str | None) -> None:
        self.ids.clear()
        gather_file(self.name, label, file, self._formats(split, label), self.gathered, self.said.delimiter)

    def check(self) -> None:
        for column in self.said.named.values():
            if column not in self.seen:
                raise choose(f"column of task {self.name!r}:", column, tuple(self.seen))
        need_rows(self.name, self.gathered, self._formats(None, ""))

    def grader(self) -> dict[str, Any]:
        """The rule as the manifest keeps it: the one that was named, else one that suits all gold answers."""
        if self.said.grader or self.said.pattern:
            named = {"name": self.said.grader or "regex", "pattern": self.said.pattern}
            return {key: value for key, value in named.items() if value is not None}
        return {
            "name": named_rules.suiting([_gold_text(f.example) for f in self.gathered.found]),
            "chosen": "by the answers",
        }

    def prepared(self, options: PrepareOptions) -> Prepared:
        """The rows by split. They are handed over and not kept, for there may be many."""
        rule, gathered = self.grader(), self.gathered
        self.gathered = Gathered()
        gathered.found = [_graded_by_demonstration(f) for f in gathered.found]
        if any(f.role == "test" for f in gathered.found):  # then whatever says nothing is meant for training
            gathered.found = [replace(f, role="train") if f.role == "pool" else f for f in gathered.found]
        if options.demonstrations == "source" and any(f.example.demonstration is None for f in gathered.found):
            options = replace(options, demonstrations="answer")
        prepared = arrange(self.name, gathered, options, _first)
        prepared.source = f"rows of your own: {', '.join(gathered.formats[_FORMAT])}"
        if unused := sorted(self.seen - self.used):
            prepared.notes.append(f"columns that are not used: {', '.join(unused)}")
        if "chosen" in rule:
            prepared.notes.append(_CHOSEN[rule["name"] == "none"].format(rule["name"]))
        return prepared

    def _formats(self, split: str | None, label: str) -> tuple[Format, ...]:
        return (Format(_FORMAT, self.said.licence, self._known, partial(self._found, split, label)),)

    def _known(self, data: dict[str, Any]) -> bool:
        columns = self._columns(data)
        return bool(columns.prompt or columns.messages)

    def _columns(self, data: dict[str, Any]) -> Columns:
        there = tuple(data)
        if there not in self.columns:
            self.columns[there] = settle(self.said, there)
            self.seen.update(name for name in there if name)
            self.used.update(self.columns[there].named.values())
        return self.columns[there]

    def _found(self, split: str | None, label: str, row: RawRow) -> list[Found | Dropped]:
        columns = self._columns(row.data)
        role = split or _split(row, columns) or _split_by_name(label) or "pool"
        prompt, rest = prompt_of(row.data, columns)
        demonstration = demonstration_of(row.data, columns, rest)
        answer = answer_of(row.data, columns.answer)
        if demonstration is None and answer is None:
            raise BadRow("no demonstration and no answer", f"fields: {', '.join(map(str, row.data))}")
        context = row.data.get(columns.context) if columns.context else None
        if context is not None and not isinstance(context, str):
            raise BadRow("context is not text", f"field {columns.context!r}")
        own = self._id(row, columns) or f"{self.name}-{f'{role}-' * (role != 'pool')}{row.number}"
        example = Example(own, prompt, demonstration, ((context or "").strip() and context) or None, answer)
        return [Found(example, role, (prompt_key("\n".join(m["content"] for m in prompt)),), row.where)]

    def _id(self, row: RawRow, columns: Columns) -> str | None:
        """The row's own id, which no other row of its file may have; None where there is no such column."""
        if columns.id is None:
            return None
        value = row.data.get(columns.id)
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            raise BadRow("no id", f"field {columns.id!r} is {value!r}")
        if (first := self.ids.setdefault(str(value), row.number)) != row.number:
            raise BadRow("duplicate id", f"{value!r} is also that of row {first}")
        return str(value)


_CHOSEN = {
    False: "graded by {!r}, which suits the gold answers; --columns can name another grader",
    True: "the answers are texts: they are scored by a judge (sdft eval --judge), or by a grader that --columns names",
}


def _split(row: RawRow, columns: Columns) -> str | None:
    if columns.split is None:
        return None
    if (split := split_of(row.data.get(columns.split), columns)) is None:
        detail = f"{columns.split!r} is {row.data.get(columns.split)!r}; splits: {', '.join(SPLIT_NAMES)}"
        raise BadRow("unknown split", detail)
    return split


def _split_by_name(label: str) -> str | None:
    """The split that a file (``test.csv``, ``train-00000-of-00002.parquet``) or a folder above it is named after."""
    _, *folders = Path(label).parent.parts or ("",)
    pieces = (Path(label).stem, *reversed(folders))
    found = (SPLIT_NAMES.get(re.split(r"[-_.]?\d", piece)[0].lower()) for piece in pieces)
    return next((split for split in found if split), None)


def _gold_text(example: Example) -> str:
    """What a row would be graded by; a demonstration of several turns is nothing to compare with."""
    if example.answer is not None:
        return _first(example.answer)
    return example.demonstration if isinstance(example.demonstration, str) else ""


def _first(answer: str | list[str]) -> str:
    return answer if isinstance(answer, str) else answer[0]


def _graded_by_demonstration(found: Found) -> Found:
    example = found.example
    if example.answer is not None or not isinstance(example.demonstration, str):
        return found
    return replace(found, example=replace(example, answer=example.demonstration))
