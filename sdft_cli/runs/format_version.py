"""The format version of a run folder, in ``run.json``; a folder of any other version is refused, never guessed at.

The number goes up whenever a reader of this version would misread what another one wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NotRequired

from sdft_cli.config import json_files
from sdft_cli.errors import UsageError
from sdft_cli.runs.files import write_whole

FORMAT = 1
FILE = "run.json"


class _Format(json_files.Record):
    format: NotRequired[int]


def write_format(folder: Path) -> None:
    """Mark ``folder`` as written in this version's format."""
    write_whole(folder / FILE, json.dumps({"format": FORMAT}) + "\n")


def check_run_folder(folder: Path) -> None:
    """Raise `UsageError` unless ``folder`` is a run folder in the format that this version reads and writes."""
    if not (folder / "recipe.json").is_file():
        problem = "has no recipe.json" if folder.is_dir() else "does not exist"
        raise UsageError(
            f"{folder} is not a run folder: it {problem}",
            "name a run folder, one that `sdft train` wrote, such as runs/<name>",
        )
    if (version := _format_of(folder)) == FORMAT:
        return
    if version is None or version < FORMAT:
        problem = f"was written by an older version of sdft, whose run folders had {_named(version)}"
        hint = "train it again in another folder (--out), or read it with the version that wrote it"
    else:
        problem, hint = f"has {_named(version)}", "pip install --upgrade sdft-cli"
    raise UsageError(f"{folder} {problem}; this version reads format {FORMAT}", hint)


def _named(version: int | None) -> str:
    return "no format version" if version is None else f"format {version}"


def _format_of(folder: Path) -> int | None:
    """The version that ``run.json`` names; None where there is no such file."""
    path = folder / FILE
    if not json_files.exists(path):
        return None
    hint = "restore the file, or train again in another folder (--out)"
    recorded: _Format = json_files.read(path, _Format, hint)
    if "format" not in recorded:
        raise UsageError(f"{path} names no format version", hint)
    return recorded["format"]
