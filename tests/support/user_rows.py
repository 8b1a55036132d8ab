"""A user's rows as `sdft prepare` reads them, up to the split: quick, with nothing written but the source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdft_cli.rows.columns import columns_of
from sdft_cli.rows.row_reader import UserRows
from sdft_cli.rows.user_rows import _sources
from sdft_cli.types import Dropped, Example


@dataclass
class Read:
    """The rows with their final prompts, those left out, the notes, and the rule that grades them."""

    rows: list[Example]
    dropped: list[Dropped]
    notes: list[str]
    rule: dict[str, str]

    @property
    def asked(self) -> list[str]:
        """The text of every prompt."""
        return ["\n---\n".join(message["content"] for message in row.prompt) for row in self.rows]

    @property
    def unused(self) -> list[str]:
        """The columns that a note names as unused."""
        named = [note.partition(": ")[2] for note in self.notes if note.startswith("unused columns")]
        return named[0].split(", ") if named else []


def read(folder: Path, rows: list[dict[str, Any]], **columns: Any) -> Read:
    """Read ``rows`` from a JSONL file in ``folder``."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return read_path(file, **columns)


def read_path(path: Path, **columns: Any) -> Read:
    """Read a file, or the files of a folder."""
    task = UserRows("mine", columns_of(columns, "columns"))
    for source, split in _sources({None: [path]}):
        task.read(source, split)
    task.check()
    rule = task.rule()
    return Read([row.example for row in task.gathered.rows], task.gathered.dropped, task._notes(rule), rule)
