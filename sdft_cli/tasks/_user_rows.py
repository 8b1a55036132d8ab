"""Tasks made from a user's own rows: any common layout, graded by a named rule.

`read` makes a task from files for `sdft prepare`. Its rule is kept in the dataset's manifest, and `find` makes the task
from there again, so that a prepared dataset trains and evaluates under its name. For which column is what, see
`tasks._columns`.

A row needs a demonstration or a gold answer. If it has only an answer, that becomes the demonstration, unless a teacher
is to write one; if it has only a demonstration, that becomes the gold answer. The split comes from the flag
(``--source mytask.test=FILE``), else from a column, else from what the file says itself (a sheet or a list of that
name), else from its name (`data.split_names`). All other rows are for training if there are test rows, and are split by
seed if there are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path

from sdft_cli.data.manifest import MANIFEST, GraderRule, read_extras
from sdft_cli.data.readers import RawRow
from sdft_cli.data.source_files import SourceFile, source_files
from sdft_cli.data.split_names import EVAL, Ambiguous, resolved
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading import named_rules
from sdft_cli.grading.named_rules import JUDGE
from sdft_cli.grading.rubrics import KNOWLEDGE, own_rubric
from sdft_cli.tasks._columns import LAYOUTS, SPLIT_NAMES, Columns, complete, split_of
from sdft_cli.tasks._conversations import answer_of, conversation_of
from sdft_cli.tasks._formats import BadRow, Format, Gathered, Record, SourceRow, gather_file, need_rows, prompt_keys
from sdft_cli.tasks._splits import arrange
from sdft_cli.types import Dropped, Example, Prepared, PrepareOptions, Score, Task

#: Files by split; None: rows or file names decide.
Files = dict[str | None, list[Path]]
_FORMAT = f"{LAYOUTS}; other columns if --columns TASK=FILE.toml names them"


def read(name: str, files: Files, columns: Columns) -> Task:
    """The task ``name`` made from ``files``, which are read right away.

    Raises `UsageError` for a file that cannot be read, for one without any usable row, and for a column that
    ``columns`` names and no row has.
    """
    rows = _UserRows(name, columns)
    for source, split in _sources(files):
        rows.read(source, split)
    rows.check()
    return _task(name, rows.rule(), columns.max_new_tokens, lambda _, options: rows.prepared(options), None)


def _sources(files: Files) -> list[tuple[SourceFile, str | None]]:
    """Every file, with the split that the flag gave it. Where none did, its name may say one, beside all others."""
    unsaid = source_files(files.get(None, []), has_test="test" in files)
    flagged = [(replace(f, split=split), split) for split, paths in files.items() if split for f in source_files(paths)]
    return [*((file, None) for file in unsaid), *flagged]


def find(name: str, data: Path) -> Task | None:
    """The task described by ``data/<name>/manifest.json``; None if there is no such dataset or it names no grader.

    Raises `UsageError` for a dataset of another format version.
    """
    if not (data / name / MANIFEST).is_file():
        return None
    manifest = read_extras(data / name)
    if (rule := manifest.get("grader")) is None:
        return None
    if "name" not in rule:
        raise UsageError(f"{data / name / MANIFEST}: grader.name: Field required", "prepare the dataset again")
    if rule["name"] == "none" and "chosen" in rule:  # what was chosen for open answers before there was a name for it
        rule = {**rule, "name": JUDGE}
    max_new_tokens = manifest.get("max_new_tokens", Columns.max_new_tokens)
    columns = Columns(
        grader=rule["name"], pattern=rule.get("pattern"), rubric=rule.get("rubric"), max_new_tokens=max_new_tokens
    )

    def again(paths: list[Path], options: PrepareOptions) -> Prepared:
        return read(name, {None: paths}, columns).prepare([], options)

    return _task(name, rule, max_new_tokens, again, data / name)


def names(data: Path) -> list[str]:
    """The datasets in ``data`` that are tasks made from a user's own rows; those that cannot be read are skipped."""
    return [folder.name for folder in sorted(data.iterdir()) if _is_task(folder)] if data.is_dir() else []


def _is_task(folder: Path) -> bool:
    try:
        return find(folder.name, folder.parent) is not None
    except UsageError:
        return False


def _task(
    name: str,
    rule: GraderRule,
    max_new_tokens: int,
    prepare: Callable[[list[Path], PrepareOptions], Prepared],
    folder: Path | None,
) -> Task:
    """``folder`` is the dataset's; None where it is yet to be written."""
    grade = named_rules.grader(rule["name"], rule.get("pattern"))
    rubric = own_rubric(rule["rubric"]) if "rubric" in rule else KNOWLEDGE if rule["name"] == JUDGE else None

    @wraps(grade)
    def graded(completion: str, example: Example) -> Score:
        return grade.score(completion, example, folder)

    return Task(
        name=name,
        summary=f"rows of your own, graded by {rule['name']!r}",
        prepare=prepare,
        grade=graded,
        max_new_tokens=max_new_tokens,
        note=_note(rule),
        grader=rule,
        rubric=rubric,
    )


def _note(rule: GraderRule) -> str:
    """How the task is scored, in words."""
    if rule["name"] == JUDGE:
        return "scored only by a judge"
    return f"graded by {rule['name']!r}" + (", unless a judge is named" if "rubric" in rule else "")


class _UserRows:
    """All rows of one task, and the columns that occur in them (``seen``) and are used (``used``)."""

    def __init__(self, name: str, columns: Columns):
        self.name, self.named_columns, self.gathered = name, columns, Gathered()
        self.seen: set[str] = set()
        self.used: set[str] = set()
        self.columns_by_fields: dict[tuple[str, ...], Columns] = {}
        self.row_by_id: dict[str, int] = {}
        self.remarks = Counter[str]()  # on how many rows

    def read(self, source: SourceFile, split: str | None) -> None:
        self.row_by_id.clear()
        named = self.named_columns
        gather_file(self.name, source, self._formats(split, source), self.gathered, named.delimiter, named.sheet)

    def check(self) -> None:
        for column in self.named_columns.named.values():
            if column not in self.seen:
                raise choose(f"column of task {self.name!r}:", column, tuple(self.seen))
        need_rows(self.name, self.gathered, self._formats(None, None))

    def rule(self) -> GraderRule:
        """The rule for the manifest: the one the user named, else one that suits all gold answers. A rubric alone asks
        for a judge."""
        named = self.named_columns
        grader, pattern, rubric = named.grader, named.pattern, {"rubric": named.rubric} if named.rubric else {}
        if pattern:
            return {"name": grader or "regex", "pattern": pattern, **rubric}
        if grader or rubric:
            return {"name": grader or JUDGE, **rubric}
        answers = [_gold_text(row.example) for row in self.gathered.rows]
        return {"name": named_rules.suiting(answers), "chosen": "by the answers"}

    def prepared(self, options: PrepareOptions) -> Prepared:
        """The rows by split. They are handed over and not kept, since there may be many."""
        rule, gathered = self.rule(), self.gathered
        self.gathered = Gathered()
        gathered.rows = [_with_answer(row) for row in gathered.rows]
        tested = any(row.role == "test" for row in gathered.rows)
        gathered.rows = [_with_split(row, tested) for row in gathered.rows]
        if any(row.role == "test" for row in gathered.rows):  # then rows without a split are meant for training
            gathered.rows = [replace(row, role="train") if row.role == "pool" else row for row in gathered.rows]
        if options.demonstrations == "source" and any(row.example.demonstration is None for row in gathered.rows):
            options = replace(options, demonstrations="answer")
        prepared = arrange(self.name, gathered, options, _first)
        prepared.source = f"rows of your own: {', '.join(gathered.formats[_FORMAT])}"
        if unused := sorted(self.seen - self.used):
            prepared.notes.append(f"unused columns: {', '.join(unused)}")
        prepared.notes += [f"{remark} ({count} rows)" for remark, count in sorted(self.remarks.items())]
        if "chosen" in rule:
            prepared.notes.append(_CHOSEN[rule["name"] == JUDGE].format(rule["name"]))
        return prepared

    def _formats(self, split: str | None, source: SourceFile | None) -> tuple[Format, ...]:
        return (Format(_FORMAT, self.named_columns.licence, self._has_prompt, partial(self._parse, split, source)),)

    def _has_prompt(self, data: Record) -> bool:
        columns = self._columns(data)
        return bool(columns.prompt or columns.messages)

    def _columns(self, data: Record) -> Columns:
        fields = tuple(data)
        if fields not in self.columns_by_fields:
            self.columns_by_fields[fields] = complete(self.named_columns, fields)
            self.seen.update(name for name in fields if name)
            self.used.update(self.columns_by_fields[fields].named.values())
        return self.columns_by_fields[fields]

    def _parse(self, split: str | None, source: SourceFile | None, row: RawRow) -> list[SourceRow | Dropped]:
        columns = self._columns(row.data)
        role = split or _split_by_column(row, columns) or row.split or self._split_by_name(source) or "pool"
        prompt, demonstration, tools, remarks = conversation_of(row.data, columns)
        answer = answer_of(row.data, columns.answer)
        if demonstration is None and answer is None:
            raise BadRow("no demonstration and no answer", f"fields: {', '.join(map(str, row.data))}")
        context = row.data.get(columns.context) if columns.context else None
        if context is not None and not isinstance(context, str):
            raise BadRow("context is not text", f"field {columns.context!r}")
        name = self._id(row, columns) or f"{self.name}-{f'{role}-' * (role != 'pool')}{row.number}"
        context = ((context or "").strip() and context) or None
        example = Example(name, prompt, demonstration, context, answer, tools=tools)
        self.remarks.update(remarks)
        return [SourceRow(example, role, prompt_keys("\n".join(m["content"] for m in prompt)), row.where)]

    def _split_by_name(self, source: SourceFile | None) -> str | None:
        """The split that the file's name or folder says; `UsageError` if it says two."""
        said = source.split if source else None
        if isinstance(said, Ambiguous):
            raise UsageError(
                f"the name {said.name!r} may be for {' or '.join(said.splits)}, and no row says which",
                f"say which: --source {self.name}.{said.splits[-1]}=FILE, or rename it",
            )
        return said

    def _id(self, row: RawRow, columns: Columns) -> str | None:
        """The row's own id, which no other row of its file may have; None if there is no id column."""
        if columns.id is None:
            return None
        value = row.data.get(columns.id)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas makes whole numbers these, where a row has none
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            raise BadRow("no id", f"field {columns.id!r} is {value!r}")
        if (first := self.row_by_id.setdefault(f"{row.split}/{value}", row.number)) != row.number:
            raise BadRow("duplicate id", f"{value!r} is also the id of row {first}")
        return str(value)


_CHOSEN = {
    False: "graded by {!r}, which suits the gold answers; --columns can name another grader",
    True: "the answers are long texts: score them with a judge (--judge MODEL), or name a grader with --columns",
}


def _with_split(row: SourceRow, tested: bool) -> SourceRow:
    """A row whose column says ``eval`` is for validation if there are test rows, and else for testing."""
    return replace(row, role=str(resolved(row.role, tested))) if row.role == EVAL else row


def _split_by_column(row: RawRow, columns: Columns) -> str | None:
    if columns.split is None:
        return None
    if (split := split_of(row.data.get(columns.split), columns)) is None:
        detail = f"{columns.split!r} is {row.data.get(columns.split)!r}; splits: {', '.join(SPLIT_NAMES)}"
        raise BadRow("unknown split", detail)
    return split


def _gold_text(example: Example) -> str:
    """What a row would be graded by; "" for a demonstration that cannot be compared with."""
    if example.answer is not None:
        return _first(example.answer)
    return _said(example) or ""


def _first(answer: str | list[str]) -> str:
    return answer if isinstance(answer, str) else answer[0]


def _with_answer(row: SourceRow) -> SourceRow:
    """A row without a gold answer is graded by its demonstration."""
    example = row.example
    if example.answer is not None or not (said := _said(example)):
        return row
    return replace(row, example=replace(example, answer=said))


def _said(example: Example) -> str | None:
    """What a demonstration of one turn says, without its reasoning; None for several turns, and for tool calls."""
    shown = example.demonstration
    if isinstance(shown, list):
        return shown[0]["content"] if len(shown) == 1 and not shown[0].get("tool_calls") else None
    return shown
