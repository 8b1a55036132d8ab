"""Files that rows refer to, such as the databases of SQL questions: found beside a source, copied into the dataset.

A dataset keeps them in ``databases/``, under their own name and the beginning of their digest, and rows name them by
that place: so a dataset can be moved, and a changed file is another file.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

FOLDER = "databases"
SUFFIXES = ("", ".sqlite", ".sqlite3", ".db")
#: Folders of databases.
_KEPT = ("database", "databases")
_FIRST_BYTES = b"SQLite format 3\x00"


class RowFiles:
    """The databases that rows name, by their place in the dataset's folder (``places``)."""

    def __init__(self) -> None:
        self.places: dict[str, Path] = {}
        self._by_file: dict[Path, str] = {}
        self._by_name: dict[tuple[str, Path], str | None] = {}

    def place_of(self, name: str, source: Path) -> str | None:
        """The place of the database that a row of the file ``source`` names; None where there is no such file. Raises
        ValueError for a file that is no SQLite database."""
        if (name, source.parent) not in self._by_name:
            self._by_name[name, source.parent] = self._found(name, source)
        return self._by_name[name, source.parent]

    def _found(self, name: str, source: Path) -> str | None:
        found = next((path for path in _candidates(name, source) if path.is_file()), None)
        if found is None:
            return None
        found = found.resolve()
        if found not in self._by_file:
            place = f"{FOLDER}/{found.stem}-{_digest(found)[:8]}.sqlite"
            self._by_file[found] = place
            self.places[place] = found
        return self._by_file[found]


def _candidates(name: str, source: Path) -> Iterator[Path]:
    """Where a row's database may be: at a path, beside the source, or where Spider and BIRD keep theirs
    (``database/<name>/<name>.sqlite``)."""
    beside, above = source.parent, source.parent.parent
    kept = [*beside.glob("*_databases"), *beside.glob("*_database"), *(above / name for name in _KEPT)]
    folders = [beside, *(beside / name for name in _KEPT), *sorted(kept)]
    for folder in folders:
        for suffix in SUFFIXES:
            yield folder / f"{name}{suffix}"
            yield folder / name / f"{Path(name).name}{suffix}"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        first = stream.read(len(_FIRST_BYTES))
        if first and first != _FIRST_BYTES:
            raise ValueError(f"{path.name} is not an SQLite database")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256")
    for log in _logs(path):
        digest.update(log.read_bytes())
    return digest.hexdigest()


def _logs(path: Path) -> list[Path]:
    """The file of changes that are not yet in the database's own file, if there are any."""
    logs = (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-journal"))
    return [log for log in logs if log.is_file() and log.stat().st_size]


def copy(files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Copy ``files`` to their places in ``folder``; returns the SHA-256 of each."""
    hashes = {}
    for place, path in sorted(files.items()):
        target = folder / place
        target.parent.mkdir(exist_ok=True)
        if _logs(path):
            _copy_whole(path, target)
        else:
            shutil.copyfile(path, target)
        with target.open("rb") as stream:
            hashes[place] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def _copy_whole(path: Path, target: Path) -> None:
    """A database with the changes in its log, in one file; the source is copied first, as reading could change it."""
    beside = target.with_suffix(".partial")
    beside.mkdir()
    for file in (path, *_logs(path)):
        shutil.copyfile(file, beside / file.name)
    with closing(sqlite3.connect(beside / path.name)) as source, closing(sqlite3.connect(target)) as copied:
        source.backup(copied)
        copied.execute("PRAGMA journal_mode = DELETE")
    shutil.rmtree(beside)


def move(partial: Path, folder: Path) -> None:
    """Put the files of a dataset that has been written into the place of an older one's."""
    source, target = partial / FOLDER, folder / FOLDER
    new = {path.name for path in source.glob("*")}
    if new:
        target.mkdir(exist_ok=True)
    for name in new:
        (source / name).replace(target / name)
    for old in target.glob("*-????????.sqlite"):
        if old.name not in new:
            old.unlink()
    for place in (source, target):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
