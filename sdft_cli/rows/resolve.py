"""Which tasks are to be prepared, and from what: shipped tasks, a plugin's, and those made from a user's own files.

A source is ``TASK=PATH`` (a file, a folder, or ``hf:ORG/NAME`` on the hub); for a user's own rows, ``TASK.test=PATH``
names their split. A name that no task has stands for the user's own rows, and their files are read here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sdft_cli import plugins
from sdft_cli.data import source_files
from sdft_cli.data.hub import Sources
from sdft_cli.data.manifest import SourceFile
from sdft_cli.errors import UsageError, choose
from sdft_cli.rows import user_rows
from sdft_cli.rows.columns import Columns, read_columns
from sdft_cli.types import SPLITS, Prepared, PrepareOptions, Task

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class SourcedTask:
    """A task and the files and folders it is made from."""

    task: Task
    paths: list[Path]

    @property
    def from_user_rows(self) -> bool:
        """Made from a user's own rows."""
        return self.task.grader is not None

    def prepare(self, options: PrepareOptions) -> Prepared:
        return self.task.prepare(self.paths, options)

    def files(self, prepared: Prepared) -> list[SourceFile]:
        """Every file, with its hash or why it was left out, so that a dataset can be traced to its sources."""
        if prepared.sources:
            return [cast(SourceFile, record) for record in prepared.sources]
        read = (file for file in _files(self.task, self.paths) if not file.left_out)  # by a task with its own reader
        return [{"file": file.name, "sha256": _digest(file.path)} for file in read]


def resolve(tasks: Sequence[str], sources: Sources, columns: Mapping[str, Path | Columns]) -> list[SourcedTask]:
    """Every task once, in the order given, with its sources; `UsageError` if names, sources or columns do not match."""
    names = list(dict.fromkeys(name.partition(".")[0] for name in tasks))
    if not names:
        raise UsageError("no task named", f"--tasks {','.join(plugins.TASKS.names())}")
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        raise UsageError(f"{bad[0]!r} cannot be the name of a task", "use letters, digits, hyphens and underscores")
    files = {name: _by_split(name, sources) for name in names}
    for flag, flag_names in (("--source", sources), ("--columns", columns)):
        if stray := [name for name in flag_names if name.partition(".")[0] not in names]:
            raise UsageError(f"{flag} is given for {stray[0]!r}, which is not among --tasks {','.join(names)}")
    named_columns = {name: read_columns(at) if isinstance(at, Path) else at for name, at in columns.items()}
    return [_sourced(name, files[name], named_columns.get(name)) for name in names]


def _sourced(name: str, files: user_rows.Files, columns: Columns | None) -> SourcedTask:
    paths = [path for split_paths in files.values() for path in split_paths]
    if name in plugins.TASKS.names() or not paths:
        task: Task = plugins.TASKS.get(name)
        if columns or set(files) - {None}:
            raise UsageError(
                f"task {name!r} knows its columns and splits, so it takes neither --columns nor a split",
                f"give only --source {name}=PATH",
            )
        _check(task, paths)
        return SourcedTask(task, paths)
    return SourcedTask(user_rows.read(name, files, columns or Columns()), paths)


def _check(task: Task, paths: list[Path]) -> None:
    if task.needs_source and not paths:
        raise UsageError(f"task {task.name!r} needs a source", f"--source {task.name}=PATH: {task.source_hint}")
    if paths and not task.needs_source:
        raise UsageError(f"task {task.name!r} makes its own rows and takes no --source", "leave it out")
    _files(task, paths)


def _by_split(name: str, sources: Sources) -> user_rows.Files:
    """The paths given for task ``name`` by the split in the flag (None: no split)."""
    files: user_rows.Files = {}
    for key, paths in sources.items():
        task, dot, split = key.partition(".")
        if task == name:
            if dot and split not in SPLITS[:-1]:
                raise choose(f"split in --source {key}:", split, SPLITS[:-1])
            files[split or None] = paths
    return files


def _files(task: Task, paths: list[Path]) -> list[source_files.SourceFile]:
    return source_files.source_files(paths, (*source_files.SUFFIXES, *task.suffixes))


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
