"""All rows of a task made from a user's own files: read, finished together, and handed over by split.

The split of a row comes from the flag (``--source mytask.test=FILE``), else from a column, else from the file's name
(``test.jsonl``). All other rows are for training if there are test rows. If there are none, they are split by seed, and
stratified where answers are labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sdft_cli.data.manifest import GraderRule
from sdft_cli.data.readers import RawRow
from sdft_cli.data.source_files import SourceFile
from sdft_cli.data.split_names import EVAL, Ambiguous, resolved
from sdft_cli.errors import UsageError, choose
from sdft_cli.grading import named_rules
from sdft_cli.grading.containment import FEW_WORDS
from sdft_cli.grading.named_rules import JUDGE
from sdft_cli.rows.articles import article, attached, is_text_file
from sdft_cli.rows.columns import SPLIT_NAMES, Columns, split_of
from sdft_cli.rows.databases import Databases
from sdft_cli.rows.finished_rows import Finished, finished
from sdft_cli.rows.formats import BadRow, Format, Gathered, Record, SourceRow, gather_file, need_rows, prompt_keys
from sdft_cli.rows.layout_table import DESCRIBED
from sdft_cli.rows.layouts import Plan, plan, squeezed
from sdft_cli.rows.message_formats import Remarks
from sdft_cli.rows.readings import Reading, preceded, reading_of
from sdft_cli.rows.row_golds import first_answer, gold_text, with_gold
from sdft_cli.rows.splits import arrange
from sdft_cli.rows.values import as_text, is_missing
from sdft_cli.types import Dropped, Example, Json, Prepared, PrepareOptions

_TABLES = "prompts begin with the tables of their database"
_FORMAT = f"{DESCRIBED}; other columns if --columns names them"
#: Columns that often say the split, besides `split`.
_LIKE_SPLITS = frozenset("set subset partition fold part datasetsplit datasplit splitname splittype".split())
#: Columns by which a question names its article.
_ABOUT = ("article", "articleid", "documentid", "docid", "title", "id")


class _Planned(NamedTuple):
    """How rows with the same columns are read, the columns without which one is of another layout, and those that are
    not used though the question may need them."""

    plan: Plan | None
    essential: Sequence[str] = ()
    left_over: Sequence[str] = ()


class UserRows:
    """All rows of one task, and the columns that occur in them (``seen``) and are used (``used``)."""

    def __init__(self, name: str, columns: Columns):
        self.name, self.named_columns, self.gathered = name, columns, Gathered()
        self.seen: set[str] = set()
        self.used: set[str] = set()
        self.like_splits: dict[str, set[str]] = {}  # unused columns that may say the split -> their values
        self.plans: dict[tuple[bool | str, ...], _Planned] = {}
        self.remarks = Counter[str]()  # on how many rows
        self.done = Finished([])
        self.databases, self.file = Databases(columns.database), Path()  # the file that is being read

    def read(self, source: SourceFile, split: str | None) -> None:
        named, self.file = self.named_columns, source.path
        gather_file(self.name, source, self._formats(split, source), self.gathered, named.delimiter, named.sheet)

    def check(self) -> None:
        """Finish the rows; `UsageError` if there are none, or if a column that the user names is in no row."""
        for column in self.named_columns.names:
            if column == self.named_columns.database and self.databases.is_for_all:
                continue
            if column not in self.seen and column.partition(".")[0] not in self.seen:
                raise choose(f"column of task {self.name!r}:", column, tuple(self.seen))
        need_rows(self.name, self.gathered, self._formats(None, None))
        _refuse_unread_splits(self.name, self.like_splits)
        self.done = finished(self.gathered.rows)
        self.gathered.rows.clear()  # with their readings, rows take twice the memory
        self.gathered.rows = self._identified(attached(self.done.rows, self.gathered.dropped))
        self.done.rows.clear()
        self.gathered.dropped += self.done.dropped
        need_rows(self.name, self.gathered, self._formats(None, None))

    @property
    def has_articles(self) -> bool:
        return any(row.role == "corpus" for row in self.gathered.rows)

    def rule(self) -> GraderRule:
        """The rule for the manifest: the one the user named, else the one of the layout, else one that suits all gold
        answers. A rubric alone asks for a judge."""
        named = self.named_columns
        grader, pattern, rubric = named.grader, named.pattern, {"rubric": named.rubric} if named.rubric else {}
        if pattern:
            return {"name": grader or "regex", "pattern": pattern, **rubric}
        if grader or rubric:
            return {"name": grader or JUDGE, **rubric}
        if self.done.grader:
            return {"name": self.done.grader, "chosen": "by the columns"}
        asked = [row.example for row in self.gathered.rows if row.role != "corpus"]
        if self.has_articles and not asked:
            return {"name": "contains", "max_words": str(FEW_WORDS), "chosen": "for questions about articles"}
        asked = [with_gold(example, calls=True) for example in asked]
        golds = [gold_text(example) for example in asked]
        name = named_rules.suiting(golds, asked)
        if self.has_articles and name == JUDGE:
            return {"name": "contains", "max_words": str(FEW_WORDS), "chosen": "for questions about articles"}
        return {"name": name, "chosen": "by the answers"}

    def prepared(self, options: PrepareOptions) -> Prepared:
        """The rows by split. They are handed over and not kept, since there may be many."""
        rule, gathered = self.rule(), self.gathered
        notes, calls = self._notes(rule), rule["name"] == "tool-calls"
        self.gathered = Gathered()
        if options.demonstrations == "teacher":  # it is to write them, and not the source's column of answers
            gathered.rows = [_without_worked(row, self.done.worked) for row in gathered.rows]
        tested = any(row.role == "test" for row in gathered.rows)
        gathered.rows = [
            row if row.role == "corpus" else replace(_with_split(row, tested), example=with_gold(row.example, calls))
            for row in gathered.rows
        ]
        if any(row.role == "test" for row in gathered.rows):  # then rows without a split are meant for training
            gathered.rows = [replace(row, role="train") if row.role == "pool" else row for row in gathered.rows]
        if options.demonstrations == "source" and any(
            row.example.demonstration is None for row in gathered.rows if row.role != "corpus"
        ):
            options = replace(options, demonstrations="answer")
        prepared = arrange(self.name, gathered, options, first_answer, by_label=True)
        kind = "texts" if set(prepared.splits) == {"corpus"} else "rows"
        prepared.source = f"{kind} of your own: {_listed(gathered.formats[_FORMAT])}"
        prepared.notes += notes
        prepared.files = self.databases.files.places if rule["name"] == "sql" else {}
        if set(prepared.splits) == {"corpus"} and options.demonstrations != "teacher":
            prepared.notes.append("articles without questions: --teacher MODEL writes some; cpt trains on the corpus")
        return prepared

    def _notes(self, rule: GraderRule) -> list[str]:
        """What was made of which column, what was left out, and how the rows are graded."""
        plans = [read for read, _, _ in self.plans.values() if read and read.layout.reads != "article"]
        notes = list(dict.fromkeys(map(_described, plans)))
        notes += self.done.notes
        if unused := sorted(self.seen - self.used):
            notes.append(f"unused columns: {', '.join(unused)}")
        notes += [f"{remark} ({count} rows)" for remark, count in sorted(self.remarks.items())]
        if rule.get("chosen") in ("by the answers", "by the columns"):
            notes.append(_CHOSEN[rule["name"] == JUDGE].format(rule["name"]))
        return notes

    def _formats(self, split: str | None, source: SourceFile | None) -> tuple[Format, ...]:
        known = partial(self._is_known, source is not None and is_text_file(source.name))
        return (Format(_FORMAT, self.named_columns.licence, known, partial(self._parse, split, source)),)

    def _is_known(self, is_text: bool, data: Record) -> bool:
        return self._plan(data, is_text) is not None

    def _plan(self, data: Record, is_text: bool) -> Plan | None:
        """How the record is read; text files have no columns that a user could name."""
        fields = tuple(name for name in data if name)
        if (is_text, *fields) not in self.plans:
            self.plans[is_text, *fields] = self._new_plan(fields, is_text)
        found, essential, left_over = self.plans[is_text, *fields]
        if empty := [name for name in essential if data[name] is None]:  # then it is of another layout
            return self._plan({name: value for name, value in data.items() if name not in empty}, is_text)
        if found and (needed := found.lost(data, left_over)):
            name, how = needed[0], f"the rows are read as {found.layout.name}, and that leaves out column {needed[0]!r}"
            hint = f"say what it is: --columns passage={name} (before the question), input={name} (after it), "
            hint += f"choices={name}, or context={name} for the teacher alone"
            if found.layout.reads == "article":
                text = found.columns.text
                hint = f"to ask for it: --columns answer={name}, and template=… with the question and {{{text}}}"
            raise UsageError(f"task {self.name!r}: {how}", f"{hint}; ignore={name} leaves it out")
        return found

    def _new_plan(self, fields: tuple[str, ...], is_text: bool) -> _Planned:
        found = plan(Columns() if is_text else self.named_columns, fields, str(self.file))
        if found is None or is_text:
            return _Planned(found)
        self.seen.update(fields)
        self.used.update(name if name in fields else name.partition(".")[0] for name in found.used)
        if found.columns.split is None and found.layout.reads != "article":
            unused = {name for name in fields if squeezed(name) in _LIKE_SPLITS} - {*found.used, *found.columns.ignore}
            self.like_splits |= {name: set() for name in unused - {*self.like_splits}}
        return _Planned(found, [name for name in _essential(found) if name in fields], found.left_over(fields))

    def _parse(self, split: str | None, source: SourceFile | None, row: RawRow) -> list[SourceRow | Dropped]:
        read = self._plan(row.data, source is not None and is_text_file(source.name))
        assert read is not None and source is not None  # `_is_known`
        if read.layout.reads == "article":
            return [article(self.name, row, read.columns.text or "text", read.columns.title or "title")]
        for column, values in self.like_splits.items():
            values.add(str(row.data.get(column)).strip())
        remarks: Remarks = set()
        role = split or _split_by_column(row, read.columns) or row.split or self._split_by_name(source) or "pool"
        reading = reading_of(row.data, read, remarks)
        reading.own_id, reading.number = _own_id(row, read.columns), row.number
        reading.file = f"{source.name}/{row.split}"
        gold = reading.gold
        if reading.demonstration is None and reading.options is None and gold.value is None and not gold.closed:
            raise BadRow("no demonstration and no answer", f"fields: {', '.join(map(str, row.data))}")
        own = self.databases.located(reading.meta, self.file, self.seen, self.remarks)
        self._show_tables(reading, own)
        meta = {**own, **({"article": about} if (about := _about(row.data)) else {})}
        example = Example(
            "", reading.prompt, reading.demonstration, reading.context, gold.value, meta=meta, tools=reading.tools
        )
        self.remarks.update(remarks)
        asked = "\n".join(message["content"] for message in reading.prompt)
        options = "\n".join(["", *sorted(reading.options.texts)]) if reading.options else ""
        return [SourceRow(example, role, prompt_keys(asked + options), row.where, reading=reading)]

    def _show_tables(self, reading: Reading, meta: dict[str, Json]) -> None:
        """Put the tables of a database before a question that does not have them, as nobody could answer it without.
        What is called a prompt says all itself, and so does a template."""
        columns = reading.plan.columns
        if columns.template or squeezed(columns.prompt or "prompt") == "prompt":
            return
        if "sql" not in (reading.kind, self.named_columns.grader) or "schema" in meta:
            return
        if tables := self.databases.tables(meta, self.named_columns.dialect or "sqlite"):
            reading.prompt = preceded(reading.prompt, tables)
            self.remarks[_TABLES] += 1

    def _split_by_name(self, source: SourceFile) -> str | None:
        """The split that the file's name or folder says; `UsageError` if it says two."""
        said = source.split
        if isinstance(said, Ambiguous):
            raise UsageError(
                f"the name {said.name!r} may be for {' or '.join(said.splits)}, and no row says which",
                f"say which: --source {self.name}.{said.splits[-1]}=FILE, or rename it",
            )
        return said

    def _identified(self, rows: Sequence[SourceRow]) -> list[SourceRow]:
        """The rows under their own ids, which no other row of their file may have, or under the task's name and their
        number. An id that is an article's names that, and not the row."""
        articles = {row.example.meta["article"] for row in rows if row.role == "corpus"}
        first: dict[tuple[str, str], int] = {}
        kept = []
        for row in rows:
            reading: Reading | None = row.reading
            if reading is None:
                kept.append(row)
                continue
            own = None if reading.own_id in articles else reading.own_id
            if own and (earlier := first.setdefault((reading.file, own), reading.number)) != reading.number:
                self.gathered.dropped.append(
                    Dropped(row.where, "duplicate id", f"{own!r} is also the id of row {earlier}")
                )
                continue
            name = own or f"{self.name}-{f'{row.role}-' * (row.role != 'pool')}{reading.number}"
            meta = row.example.meta
            if "article" in meta and meta["article"] not in articles:
                meta = {key: value for key, value in meta.items() if key != "article"}
            kept.append(replace(row, example=replace(row.example, id=name, meta=meta), reading=None))
        return kept


def _refuse_unread_splits(task: str, columns: Mapping[str, set[str]]) -> None:
    """`UsageError` if an unused column says of every row which split it is in: test rows would go into training."""
    for column, values in columns.items():
        splits = {split_of(value, Columns()) for value in values}
        if len(splits) > 1 and None not in splits:
            raise UsageError(
                f"task {task!r}: column {column!r} says {' and '.join(sorted(values))}, and is not used",
                f"--columns split={column} puts the rows where it says; ignore={column} leaves it out",
            )


_CHOSEN = {
    False: "graded by {!r}, which suits the gold answers; --columns can name another grader",
    True: "the answers are long texts: score them with a judge (--judge MODEL), or name a grader with --columns",
}


def _listed(files: list[str]) -> str:
    """The first few names, and how many more there are; the manifest has all of them."""
    return ", ".join(files[:5]) + f" and {len(files) - 5} more" * (len(files) > 5)


def _essential(read: Plan) -> list[str]:
    """Columns without which a row is of another layout."""
    return [column for column in (read.columns.choices, read.columns.messages) if isinstance(column, str)]


def _described(read: Plan) -> str:
    """What was made of which column, in the words of ``--columns``."""
    parts = {**read.parts, **read.columns.named}
    rejected = parts.pop("rejected", None)
    listed = (
        f"{role}={column if isinstance(column, str) else '[' + ', '.join(column) + ']'}"
        for role, column in parts.items()
    )
    left_out = f"; the responses in {rejected!r} are left out" if rejected else ""
    return f"read as {read.layout.name}: {', '.join(listed)}{_about_context(read)}{left_out}"


def _about_context(read: Plan) -> str:
    """Who sees a column that could be a passage for both or an article for the teacher alone."""
    columns = read.columns
    if columns.context:
        return f"; only the teacher sees {columns.context!r}, and passage={columns.context} puts it into the prompt"
    if isinstance(columns.passage, str) and squeezed(columns.passage) == "context":
        return f"; prompts begin with {columns.passage!r}, and context={columns.passage} shows it to the teacher alone"
    return ""


def _about(data: Record) -> str:
    """The article that a row names, if any: only where there are articles does that mean anything."""
    by_name = {squeezed(name): value for name, value in data.items() if name}
    values = (by_name.get(name) for name in _ABOUT)
    return next((str(v) for v in values if isinstance(v, str | int) and not is_missing(v)), "")


def _own_id(row: RawRow, columns: Columns) -> str | None:
    """The row's own id; None if there is no id column."""
    if columns.id is None:
        return None
    value = row.data.get(columns.id)
    if is_missing(value) or isinstance(value, bool | list | dict):
        raise BadRow("no id", f"field {columns.id!r} is {value!r}")
    return as_text(value, "id", columns.id)


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


def _without_worked(row: SourceRow, worked: set[str]) -> SourceRow:
    return replace(row, example=replace(row.example, demonstration=None)) if row.where in worked else row
