"""Which tasks are to be prepared and what from: shipped ones, a plugin's, and those made of one's own files.

A source is ``TASK=PATH`` (a file, a folder, or ``hf:ORG/NAME`` of the hub); ``TASK.test=PATH`` says for one's own rows
which split they are for. A name that no task has is one's own, and its files are read here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from sdft_cli import plugins
from sdft_cli.data.hub import Sources
from sdft_cli.data.readers import SUFFIXES, source_files
from sdft_cli.errors import UsageError, choose
from sdft_cli.tasks import _own
from sdft_cli.tasks._columns import Columns, read_columns
from sdft_cli.types import SPLITS, Prepared, PrepareOptions, Task

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Sourced:
    """A task and the files and folders that it is made of."""

    task: Task
    paths: list[Path]

    @property
    def own(self) -> bool:
        """Made of one's own rows."""
        return self.task.grader is not None

    def prepare(self, options: PrepareOptions) -> Prepared:
        return self.task.prepare(self.paths, options)

    def hashes(self) -> list[dict[str, str]]:
        """Name and content hash of every file, so that a dataset can be traced to what it was made from."""
        return [{"file": name, "sha256": _digest(file)} for name, file in _files(self.task, self.paths)]


def resolve(tasks: list[str], sources: Sources, columns: dict[str, Path]) -> list[Sourced]:
    """Every task once, in the order given, with its sources; `UsageError` for whatever does not fit together."""
    names = list(dict.fromkeys(name.partition(".")[0] for name in tasks))
    if not names:
        raise UsageError("no task named", f"--tasks {','.join(plugins.TASKS.names())}")
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        raise UsageError(f"{bad[0]!r} cannot be the name of a task", "use letters, digits, hyphens and underscores")
    given = {name: _by_split(name, sources) for name in names}
    for flag, strays in (("--source", sources), ("--columns", columns)):
        if stray := [name for name in strays if name.partition(".")[0] not in names]:
            raise UsageError(f"{flag} is given for {stray[0]!r}, which is not among --tasks {','.join(names)}")
    said = {name: read_columns(path) for name, path in columns.items()}
    return [_sourced(name, given[name], said.get(name)) for name in names]


def _sourced(name: str, files: _own.Files, said: Columns | None) -> Sourced:
    paths = [path for some in files.values() for path in some]
    if name in plugins.TASKS.names() or not paths:
        task: Task = plugins.TASKS.get(name)
        if said or set(files) - {None}:
            raise UsageError(
                f"task {name!r} knows its columns and splits by itself", f"give --source {name}=PATH alone"
            )
        _check(task, paths)
        return Sourced(task, paths)
    return Sourced(_own.read(name, files, said or Columns()), paths)


def _check(task: Task, paths: list[Path]) -> None:
    if task.needs_source and not paths:
        raise UsageError(f"task {task.name!r} needs a source", f"--source {task.name}=PATH: {task.source_hint}")
    if paths and not task.needs_source:
        raise UsageError(f"task {task.name!r} makes its own rows and takes no --source", "leave it out")
    _files(task, paths)


def _by_split(name: str, sources: Sources) -> _own.Files:
    """The paths given for task ``name`` by the split that the flag says (None: it says none)."""
    files: _own.Files = {}
    for key, paths in sources.items():
        task, dot, split = key.partition(".")
        if task == name:
            if dot and split not in SPLITS[:-1]:
                raise choose(f"split in --source {key}:", split, SPLITS[:-1])
            files[split or None] = paths
    return files


def _files(task: Task, paths: list[Path]) -> list[tuple[str, Path]]:
    return [item for path in paths for item in source_files(path, (*SUFFIXES, *task.suffixes))]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
