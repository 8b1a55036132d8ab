"""What a run was started with, by digest: ``inputs.json``, and what has changed since.

A run that is resumed or continued must train on the rows, and be measured on the items, that it was started with, from
the same weights. The file has a digest of every file that decides that, and of how the chat template rendered the first
row of each task. Versions of libraries are in ``environment.json``.

A file of at most `SMALL` bytes is read whenever it is compared. A larger one, such as a file of weights, is read only
if its size or its time of change is another: fifteen gigabytes take half a minute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NotRequired

from sdft_cli.config import json_files
from sdft_cli.config.json_files import Count, Record
from sdft_cli.runs.files import write_whole
from sdft_cli.types import Json

FILE = "inputs.json"
SMALL = 64 * 1024 * 1024


class FileRecord(Record):
    """A file's SHA-256, its size in bytes and time of change in nanoseconds; of a JSONL file also its ``rows``."""

    sha256: str
    bytes: Count
    modified: int
    rows: NotRequired[Count]


#: Files by name.
Files = dict[str, FileRecord]


class ModelRecord(Record):
    """The base model: its files (for an adapter, also those of its base, below ``base/``), or the commit of a hub
    id's; and digests of the chat template's source and of what it ``rendered``, the first row of each task."""

    files: Files
    commit: str | None
    template: str
    rendered: dict[str, str]


class Inputs(Record):
    """``data`` by task and file name; ``others`` by path: plug-in files, general prompts, benchmark files."""

    data: dict[str, Files]
    model: ModelRecord
    others: Files


class Difference(NamedTuple):
    """An input that is not what it was: its ``key`` in the metrics, ``what`` it is, and both values."""

    key: str
    what: str
    before: Json
    now: Json


def read_inputs(run: Path) -> Inputs | None:
    """What the run was started with; None for a run that has not recorded it."""
    path = run / FILE
    if not json_files.exists(path):
        return None
    hint = "restore it, or remove it: what is there now is then recorded"
    inputs: Inputs = json_files.read(path, Inputs, hint)
    return inputs


def write_inputs(run: Path, inputs: Inputs) -> None:
    write_whole(run / FILE, json.dumps(inputs, indent=1) + "\n")


def record_of(path: Path, known: FileRecord | None = None) -> FileRecord:
    """The record of the file at ``path``; a large one that is still as ``known`` by size and time is not read."""
    stat = path.stat()
    if known and stat.st_size > SMALL and (known["bytes"], known["modified"]) == (stat.st_size, stat.st_mtime_ns):
        return known
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    record: FileRecord = {"sha256": digest, "bytes": stat.st_size, "modified": stat.st_mtime_ns}
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            record["rows"] = sum(1 for line in lines if line.strip())
    return record


def compare(old: Inputs, new: Inputs) -> list[Difference]:
    """What differs among the inputs that both have, and files that only one has; new tasks and plug-ins are none."""
    found = []
    for task in old["data"].keys() & new["data"].keys():
        found += _files(f"data.{task}.", f"{task}/", old["data"][task], new["data"][task])
    before, now = old["model"], new["model"]
    if before["commit"] != now["commit"] and before["commit"] and now["commit"]:
        found.append(Difference("model.commit", "the model's commit on the hub", before["commit"], now["commit"]))
    elif bool(before["files"]) != bool(now["files"]):
        found.append(Difference("model.commit", "where the model is from", _origin(before), _origin(now)))
    found += _files("model.", "", before["files"], now["files"])
    if before["template"] != now["template"]:
        found.append(Difference("model.template", "the chat template", before["template"], now["template"]))
    for task in before["rendered"].keys() & now["rendered"].keys():
        pair = before["rendered"][task], now["rendered"][task]
        if pair[0] != pair[1]:
            found.append(Difference(f"rendered.{task}", f"how the chat template renders {task}'s first row", *pair))
    both = old["others"].keys() & new["others"].keys()
    found += _files("others.", "", *({name: of[name] for name in both} for of in (old["others"], new["others"])))
    return sorted(found)


def _origin(model: ModelRecord) -> str:
    return "a folder" if model["files"] else f"the hub, commit {model['commit'] or 'unknown'}"


def _files(key: str, folder: str, old: Mapping[str, FileRecord], new: Mapping[str, FileRecord]) -> list[Difference]:
    """The files that are not the same by digest, or that only one side has."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if before is None or now is None or before["sha256"] != now["sha256"]:
            found.append(Difference(key + name, folder + name, _text(before), _text(now)))
    return found


def _text(record: FileRecord | None) -> str:
    """``480 rows, 1f2e3d4c``; enough of a digest to tell two files apart."""
    if record is None:
        return "no such file"
    rows = f"{record['rows']} rows, " if "rows" in record else ""
    return f"{rows}sha256 {record['sha256'][:16]}"
