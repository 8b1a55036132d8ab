"""Which files a source has: those that are read, with the split their names say, and those left out, with the reason.

A file that is given by itself is read, whatever it is called. In a folder, suffixes decide, in any case, also before
``.gz``, ``.zst``, ``.bz2`` and ``.xz``. Hidden files and folders do not count, nor do those of operating systems and
editors (``__MACOSX``, ``~$book.xlsx``). Files that describe a dataset (``README.md``, ``dataset_info.json``, …) are
left out by name. Two kinds of folders say themselves what is read: one that `datasets` has saved, by its
``state.json``, and a repository of the hub, by the ``configs`` at the head of its ``README.md``.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from sdft_cli.data import hub_cards
from sdft_cli.data.split_names import Ambiguous, split_of_name, splits_of_files
from sdft_cli.errors import UsageError

SUFFIXES = (
    *(".json", ".jsonl", ".ndjson", ".jsonlines", ".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather"),
    *(".xlsx", ".xlsm"),
)
#: Those that messages name.
_USUAL = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx")
TEXT_SUFFIXES = (".txt", ".md")
PACKED = (".gz", ".zst", ".bz2", ".xz")
#: Files that describe a dataset and hold no rows of it, as `datasets` and the hub write them.
_DESCRIBING = (
    *("readme.md", "readme.txt", "readme", "license", "licence", "license.txt", "license.md", "licence.txt"),
    *("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
    *("croissant.json", "datapackage.json", "dummy_data.zip"),
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".lz4")
_SPREADSHEETS = (".xls", ".xlsb", ".ods", ".numbers")
_DATABASES = (".sqlite", ".sqlite3", ".db")
#: As many files of one folder with one suffix are named one by one; more, by a pattern.
_FEW = 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source. ``name`` starts at the given file or folder, so that no path of this machine gets into a
    manifest; ``given``: the user named this very file; ``split``: what its name or folder says (an `Ambiguous` name
    says two); ``left_out``: why it is not read."""

    name: str
    path: Path
    given: bool = False
    split: str | Ambiguous | None = None
    left_out: str | None = None


class _Entry(NamedTuple):
    """A file in a folder: its path below it, and what is known of it so far."""

    below: Path
    split: str | Ambiguous | None = None
    left_out: str | None = None


def source_files(
    paths: Sequence[Path], suffixes: tuple[str, ...] = SUFFIXES, has_test: bool = False
) -> list[SourceFile]:
    """Every file of all ``paths`` (which may be patterns), in a fixed order; ``suffixes`` are those that are read from
    folders.

    ``has_test``: other files of the task are given as test files. Raises `UsageError` for a path that does not exist, a
    folder without any file to read, and a repository with several configurations.
    """
    paths = [found for path in paths for found in _places(path)]
    files = _told_apart([file for path in paths for file in _files_at(path, suffixes)])
    named = splits_of_files([_said(file) for file in files], has_test)
    return [file if file.split else replace(file, split=split) for file, split in zip(files, named, strict=True)]


def stem(name: str) -> str:
    """``name`` without its suffixes: ``test`` of ``test.jsonl.gz``."""
    inner = unpacked_name(name)
    suffix = Path(inner).suffix
    return inner[: -len(suffix)] if suffix.lower() in (*SUFFIXES, *TEXT_SUFFIXES) else inner


def suffix(name: str) -> str:
    """The suffix that says what a file holds, in small letters: ``.jsonl`` of ``B.JSONL.GZ``."""
    return Path(unpacked_name(name)).suffix.lower()


def unpacked_name(name: str) -> str:
    """``name`` without the suffix of a packer: ``b.jsonl`` of ``b.jsonl.gz``."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in PACKED else name


def _told_apart(files: list[SourceFile]) -> list[SourceFile]:
    """``files``, with the folder in the names of those that were given and have the name of another."""
    paths: dict[str, set[Path]] = {}
    for file in files:
        paths.setdefault(file.name, set()).add(file.path)
    alike = [file.given and len(paths[file.name]) > 1 for file in files]
    longer = [f"{file.path.resolve().parent.name}/{file.name}" for file in files]
    return [replace(f, name=n) if a else f for f, n, a in zip(files, longer, alike, strict=True)]


def _places(path: Path) -> list[Path]:
    """``path`` with the home folder for ``~``, or what a pattern such as ``data/*.jsonl`` matches: a shell leaves both
    as they are after ``TASK=``."""
    path = path.expanduser()
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    if not (found := sorted(glob.glob(str(path), recursive=True))):
        raise UsageError(f"no source file matches {path}", "check the pattern after --source TASK=")
    return [Path(name) for name in found]


def _said(file: SourceFile) -> str:
    """What names the split of a file: its path within the source. A file given by itself is in the folder it is in."""
    return stem(f"{file.path.resolve().parent.name}/{file.path.name}" if file.given else file.name)


def _files_at(path: Path, suffixes: tuple[str, ...]) -> list[SourceFile]:
    if path.is_file():
        return [SourceFile(path.name, path, given=True)]
    if not path.is_dir():
        raise _no_source(path)
    top = path.name if path.name not in ("", "..") else path.resolve().name
    entries = sorted(_entries(path, suffixes))
    files = [SourceFile((Path(top) / e.below).as_posix(), path / e.below, False, e.split, e.left_out) for e in entries]
    if not any(file.left_out is None for file in files):
        kinds = [*_USUAL, *(suffix for suffix in suffixes if suffix not in SUFFIXES)]
        others = f"; it has {files[0].name} ({files[0].left_out})" if files else ""
        raise UsageError(
            f"{path} has no {', '.join(kinds[:-1])} or {kinds[-1]} file{others}",
            "name the file, or the folder it is in",
        )
    return _few(files)


def _no_source(path: Path) -> UsageError:
    if path.exists():
        return UsageError(
            f"{path} is no file and no folder, but a pipe or a device", "write its content to a file first"
        )
    hint = "check the path after --source TASK="
    if str(path).startswith(("http:", "https:")):
        hint = "download it and name the file; for a dataset of the hub write --source TASK=hf:ORG/NAME"
    return UsageError(f"no source file or folder at {path}", hint)


def _entries(path: Path, suffixes: tuple[str, ...]) -> Iterator[_Entry]:
    """Every file of a folder that is not hidden."""
    configured = hub_cards.data_files(path)
    for folder, names in _walk(path):
        saved = _saved(folder, names)
        for name in names:
            below = (folder / name).relative_to(path)
            if saved is not None:
                split, why = saved.get(name, (None, _why_not_saved(name)))
                yield _Entry(below, split, why)
            elif configured is not None:
                split = configured.get(below.as_posix())
                yield _Entry(below, split, None if below.as_posix() in configured else "not among the configured files")
            else:
                yield _Entry(below, None, _why_not(folder / name, suffixes))


def _walk(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder that is not hidden, with the names of its files; links are followed, in no circles."""
    seen: set[str] = set()
    for folder, inner, names in os.walk(path, followlinks=True, onerror=_unreadable):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        yield Path(folder), sorted(name for name in names if not name.startswith((".", "~$")))


def _unreadable(error: OSError) -> None:
    raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}", "change its permissions")


def _why_not(file: Path, suffixes: tuple[str, ...]) -> str | None:
    """Why a file of a folder is not read; None if it is."""
    name, kind = file.name.lower(), suffix(file.name)
    if name in _DESCRIBING:
        return "describes the dataset"
    if not file.is_file():
        return "a link to nothing, or no regular file"
    if kind in suffixes:
        return None
    if kind in _ARCHIVES or name.endswith(_ARCHIVES):
        return "an archive: unpack it"
    if kind in _SPREADSHEETS:
        return "not read: save it as .xlsx or CSV"
    if kind in _DATABASES:
        return "a database, which only rows that name it need"
    return "text without columns" if kind in TEXT_SUFFIXES else "not a format of rows"


def _saved(folder: Path, names: Iterable[str]) -> dict[str, tuple[str | Ambiguous | None, str | None]] | None:
    """The files of a dataset that `datasets` saved in ``folder``, with their split; None if it saved none there."""
    if "state.json" not in names:
        return None
    try:
        state = json.loads((folder / "state.json").read_bytes())
        files = [str(entry["filename"]) for entry in state["_data_files"]]
    except (ValueError, TypeError, KeyError, OSError):
        return None
    if lacking := [name for name in files if not (folder / name).is_file()]:
        raise UsageError(f"{folder / lacking[0]} is missing, which state.json lists", "save or copy the dataset again")
    split = _saved_split(folder, state.get("_split"))
    return dict.fromkeys(files, (split, None))


def _saved_split(folder: Path, recorded: object) -> str | Ambiguous | None:
    """The split of a saved dataset: its folder's name in a dictionary of datasets, else what `datasets` recorded."""
    in_dictionary = (folder.parent / "dataset_dict.json").is_file()
    try:
        return split_of_name(folder.name if in_dictionary else str(recorded or "").partition("[")[0])
    except Ambiguous as error:
        return error


def _why_not_saved(name: str) -> str:
    return "describes the dataset" if name.lower() in _DESCRIBING else "not part of the saved dataset"


def _few(files: list[SourceFile]) -> list[SourceFile]:
    """``files``, with one entry for many that are left out of one folder for one reason."""
    groups: dict[tuple[str, str, str], list[SourceFile]] = {}
    for file in files:
        if file.left_out:
            key = (str(Path(file.name).parent), Path(file.name).suffix, file.left_out)
            groups.setdefault(key, []).append(file)
    many = {key: group for key, group in groups.items() if len(group) > _FEW}
    folded = {file.name for group in many.values() for file in group}
    patterns = [
        replace(group[0], name=f"{folder}/*{end}", left_out=f"{why} ({len(group)} files)")
        for (folder, end, why), group in many.items()
    ]
    return [file for file in files if file.name not in folded] + patterns
