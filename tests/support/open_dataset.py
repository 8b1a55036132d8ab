"""A dataset whose answers nothing scores: rows of a micro task with the grader of open answers; for tests only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def open_dataset(
    data: Path, name: str = "support", of: str = "micro-science", change: Callable[[str, Row], Row] | None = None
) -> Path:
    """Write ``data/<name>`` from the prepared ``data/<of>``; ``change`` makes a split's row into another one."""
    folder = Path(shutil.copytree(data / of, data / name))
    manifest = json.loads((folder / "manifest.json").read_text())
    open_answers = {"name": "none", "chosen": "by the answers"}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"task": name, "grader": open_answers}))
    for path in folder.glob("*.jsonl") if change else ():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(change(path.stem, row)) + "\n" for row in rows))
    return folder


def bare(split: str, row: Row) -> Row:
    """Held-out rows without anything to be answered with."""
    return row if split == "train" else {k: v for k, v in row.items() if k not in ("demonstration", "answer")}
