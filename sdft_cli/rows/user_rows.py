"""Tasks made from a user's own files: any common layout of rows, graded by a named rule, and any folder of texts.

`read` makes a task from files for `sdft prepare`. Its rule is kept in the dataset's manifest, and `find` makes the task
from there again, so that a prepared dataset trains and evaluates under its name. For which column is what, see
`rows.layouts` and `rows.columns`; for how rows are read, `rows.row_reader`.

A row needs a demonstration or a gold answer. If it has only an answer, that becomes the demonstration, unless a teacher
is to write one; if it has only a demonstration, that becomes the gold answer. Raw text (files of text, rows with a
``text`` and no question) becomes a corpus, about which a teacher can write questions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path

from sdft_cli.data.manifest import MANIFEST, GraderRule, read_extras
from sdft_cli.data.source_files import SUFFIXES, TEXT_SUFFIXES, SourceFile, source_files, suffix
from sdft_cli.errors import UsageError
from sdft_cli.grading import named_rules
from sdft_cli.grading.named_rules import JUDGE
from sdft_cli.grading.rubrics import KNOWLEDGE, own_rubric
from sdft_cli.rows.columns import Columns, columns_of
from sdft_cli.rows.finished_rows import without
from sdft_cli.rows.row_reader import UserRows
from sdft_cli.types import Example, Json, Prepared, PrepareOptions, Score, Task

#: Files by split; None: rows or file names decide.
Files = dict[str | None, list[Path]]


def read(name: str, files: Files, columns: Columns) -> Task:
    """The task ``name`` made from ``files``, which are read right away.

    Raises `UsageError` for a file that cannot be read, for one without any usable row, and for a column that
    ``columns`` names and no row has.
    """
    rows = UserRows(name, columns)
    for source, split in _sources(files):
        rows.read(source, split)
    rows.check()
    prepare = lambda _, options: rows.prepared(options)  # noqa: E731
    question = without(rows.done.asks) if rows.done.asks else None
    suffixes = TEXT_SUFFIXES if rows.has_articles else ()
    return _task(name, rows.rule(), columns, prepare, rows.databases.of_sources, question, suffixes)


def _sources(files: Files) -> list[tuple[SourceFile, str | None]]:
    """Every file, with the split that the flag gave it. Where none did, its name may say one, beside all others."""
    kinds = (*SUFFIXES, *TEXT_SUFFIXES)
    unsaid = _rows_or_texts(source_files(files.get(None, []), kinds, "test" in files))
    flagged = [
        (replace(f, split=split), split)
        for split, paths in files.items()
        if split
        for f in _rows_or_texts(source_files(paths, kinds))
    ]
    return [*((file, None) for file in unsaid), *flagged]


def _rows_or_texts(files: list[SourceFile]) -> list[SourceFile]:
    """The files of folders with rows without their text files, which are left out by name (notes of the author, a
    licence). In a folder of nothing but texts, a README is one of them."""
    with_rows = {_top(f) for f in files if not f.given and not f.left_out and suffix(f.name) not in TEXT_SUFFIXES}
    kept = []
    for file in files:
        if not file.given and suffix(file.name) in TEXT_SUFFIXES:
            if _top(file) in with_rows:
                file = replace(file, left_out=file.left_out or "text without columns")
            elif Path(file.name).stem.lower() == "readme":
                file = replace(file, left_out=None)
        kept.append(file)
    return kept


def _top(file: SourceFile) -> str:
    """The folder that was given as the source."""
    return file.name.partition("/")[0]


def find(name: str, data: Path) -> Task | None:
    """The task described by ``data/<name>/manifest.json``; None if there is no such dataset or it names no grader.

    Raises `UsageError` for a dataset of another format version.
    """
    if not (data / name / MANIFEST).is_file():
        return None
    manifest = read_extras(data / name)
    if (rule := manifest.get("grader")) is None:
        return None
    where = str(data / name / MANIFEST)
    if "name" not in rule:
        raise UsageError(f"{where}: grader.name: Field required", "prepare the dataset again")
    if rule["name"] == "none" and "chosen" in rule:  # what was chosen for open answers before there was a name for it
        rule = {**rule, "name": JUDGE}
    settings: Mapping[str, Json] = manifest.get("columns", {})
    given: dict[str, Json] = {"grader": rule["name"], "pattern": rule.get("pattern"), "rubric": rule.get("rubric")}
    given |= {"max_new_tokens": manifest.get("max_new_tokens")}
    columns = columns_of({**settings, **{key: value for key, value in given.items() if value is not None}}, where)

    def again(paths: list[Path], options: PrepareOptions) -> Prepared:
        return read(name, {None: paths}, columns).prepare([], options)

    return _task(name, rule, columns, again, data / name)


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
    columns: Columns,
    prepare: Callable[[list[Path], PrepareOptions], Prepared],
    folder: Path | Callable[[Example], Example],
    question: Callable[[Example], str] | None = None,
    suffixes: tuple[str, ...] = (),
) -> Task:
    """``folder`` is the dataset's; where it is yet to be written, what names the sources of a row's files instead."""
    grade = named_rules.grader(rule["name"], rule.get("pattern"), columns.given)
    stated = {key: json.dumps(value, sort_keys=True) for key, value in columns.given.items()}
    rule = {**rule, **stated}  # which is what its scores are kept under
    longest = int(rule.get("max_words", 0))
    rubric = own_rubric(rule["rubric"]) if "rubric" in rule else KNOWLEDGE if longest or rule["name"] == JUDGE else None

    @wraps(grade)
    def graded(completion: str, example: Example) -> Score:
        if longest and isinstance(example.answer, str) and len(example.answer.split()) > longest:
            return Score(None, None, f"unscored: a gold answer of more than {longest} words needs a judge (--judge)")
        if isinstance(folder, Path):
            return grade.score(completion, example, folder)
        return grade.score(completion, folder(example))

    return Task(
        name=name,
        summary=f"rows of your own, {_note(rule)}",
        prepare=prepare,
        grade=graded,
        max_new_tokens=columns.max_new_tokens,
        note=_note(rule),
        grader=rule,
        columns=columns.settings(),
        suffixes=suffixes,
        question=question,
        rubric=rubric,
        render=grade.render,
        accept=columns.accept or (None if grade.graded else 1.0),
    )


def _note(rule: GraderRule) -> str:
    """How the task is scored, in words."""
    if rule["name"] == JUDGE:
        return "scored only by a judge"
    if "max_words" in rule:
        return (
            f"gold answers of up to {rule['max_words']} words are graded by {rule['name']!r}, unless a judge is named"
        )
    return f"graded by {rule['name']!r}" + (", unless a judge is named" if "rubric" in rule else "")
