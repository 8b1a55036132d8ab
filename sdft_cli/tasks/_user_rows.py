"""Tasks made from a user's own files: any common layout of rows, graded by a named rule, and any folder of texts.

`read` makes a task from files for `sdft prepare`. Its rule is kept in the dataset's manifest, and `find` makes the task
from there again, so that a prepared dataset trains and evaluates under its name. For which column is what, see
`tasks._layouts` and `tasks._columns`; for how rows are read, `tasks._row_reader`.

A row needs a demonstration or a gold answer. If it has only an answer, that becomes the demonstration, unless a teacher
is to write one; if it has only a demonstration, that becomes the gold answer. Raw text (files of text, rows with a
``text`` and no question) becomes a corpus, about which a teacher can write questions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path

from sdft_cli.data.manifest import MANIFEST, GraderRule, read_extras
from sdft_cli.data.readers import SUFFIXES, TEXT_SUFFIXES, source_files
from sdft_cli.errors import UsageError
from sdft_cli.grading import named_rules
from sdft_cli.grading.rubrics import KNOWLEDGE
from sdft_cli.tasks._columns import Columns, columns_of
from sdft_cli.tasks._finished_rows import without
from sdft_cli.tasks._row_reader import UserRows
from sdft_cli.types import Example, Json, Prepared, PrepareOptions, Score, Task

#: Files by split; None: rows or file names decide.
Files = dict[str | None, list[Path]]


def read(name: str, files: Files, columns: Columns) -> Task:
    """The task ``name`` made from ``files``, which are read right away.

    Raises `UsageError` for a file that cannot be read, for one without any usable row, and for a column that
    ``columns`` names and no row has.
    """
    rows = UserRows(name, columns)
    for split, paths in files.items():
        for path in paths:
            for label, file in _files(path, rows.left_out):
                rows.read(label, file, split)
    rows.check()
    prepare = lambda _, options: rows.prepared(options)  # noqa: E731
    question = without(rows.done.asks) if rows.done.asks else None
    suffixes = TEXT_SUFFIXES if rows.has_articles else ()
    return _task(name, rows.rule(), columns, prepare, rows.databases.of_sources, question, suffixes)


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
    settings: Mapping[str, Json] = manifest.get("columns", {})
    given = {"grader": rule["name"], "pattern": rule.get("pattern"), "max_new_tokens": manifest.get("max_new_tokens")}
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


def _files(path: Path, left_out: list[str]) -> list[tuple[str, Path]]:
    """The files of a source. In a folder with files of rows, text files (a README) are no articles: they are
    ``left_out``, and named."""
    found = source_files(path, (*SUFFIXES, *TEXT_SUFFIXES))
    rows = [(label, file) for label, file in found if not file.name.lower().endswith(TEXT_SUFFIXES)]
    if not rows or not path.is_dir():
        return found
    left_out += [label for label, file in found if (label, file) not in rows]
    return rows


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

    @wraps(grade)
    def graded(completion: str, example: Example) -> Score:
        if longest and isinstance(example.answer, str) and len(example.answer.split()) > longest:
            return Score(None, None, f"unscored: a gold answer of more than {longest} words needs a judge (--judge)")
        if isinstance(folder, Path):
            return grade.score(completion, example, folder)
        return grade.score(completion, folder(example))

    how = "scored only by a judge" if rule["name"] == "none" else f"graded by {rule['name']!r}"
    if longest:
        how = f"gold answers of up to {longest} words are {how}, longer ones are scored by a judge"
    return Task(
        name=name,
        summary=f"rows of your own, {how}",
        prepare=prepare,
        grade=graded,
        max_new_tokens=columns.max_new_tokens,
        note=how,
        grader=rule,
        columns=columns.settings(),
        suffixes=suffixes,
        question=question,
        rubric=KNOWLEDGE if longest or rule["name"] == "none" else None,
        render=grade.render,
    )
