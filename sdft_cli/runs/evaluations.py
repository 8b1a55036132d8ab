"""Evaluations on disk, one folder per stage: ``evals/NN-<task>/{scores.json, <unit>.jsonl}``.

An item file has one graded completion per line. ``scores.json`` is written last: where it exists, the rest is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft_cli.errors import UsageError
from sdft_cli.runs.files import write_together
from sdft_cli.runs.records import ItemRecord, Scores, StageId
from sdft_cli.types import Json


@dataclass(frozen=True)
class StageEvaluation:
    """What was measured of a run after one stage."""

    run: Path
    stage: StageId

    @property
    def folder(self) -> Path:
        return self.run / "evals" / str(self.stage)

    def scores(self) -> Scores | None:
        """What is on disk; None before the first measurement."""
        path = self.folder / "scores.json"
        if not path.is_file():
            return None
        scores: Scores = json_object(path)
        return scores

    def write(self, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
        write_evaluation(self.folder, scores, items)


def write_evaluation(
    folder: Path, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]
) -> None:
    """Item files first, ``scores.json`` last: where it exists, they are complete."""
    lines = {unit: "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows) for unit, rows in items.items()}
    files = {folder / f"{unit}.jsonl": text for unit, text in lines.items()}
    write_together({**files, folder / "scores.json": json.dumps(scores, indent=2) + "\n"})


# --- reading --------------------------------------------------------------------------------------------------------


def json_object(path: Path) -> Json:
    """The JSON object in a file, for the caller to annotate; `UsageError` if the file holds anything else."""
    hint = "restore the file; a scores.json is written anew when that stage is evaluated again"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint) from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: not a JSON object", hint)
    return value


def stage_folders(run: Path) -> dict[int, Path]:
    """The evaluated stages of a run by number: folders ``NN-<task>`` that hold a ``scores.json``."""
    folders = {}
    for path in sorted((run / "evals").glob("*/scores.json")):
        if match := re.match(r"(\d+)-", path.parent.name):
            folders[int(match[1])] = path.parent
    return folders


def read_stages(run: Path) -> dict[int, Scores]:
    """``scores.json`` of every evaluated stage, by number."""
    return {stage: json_object(folder / "scores.json") for stage, folder in stage_folders(run).items()}


def read_items(run: Path, stage: int, unit: str) -> list[ItemRecord]:
    """The items of one unit at one stage; empty where there are none, `UsageError` where the file is broken."""
    folder = stage_folders(run).get(stage)
    path = folder / f"{unit}.jsonl" if folder else None
    return item_rows(path) if path and path.is_file() else []


def item_rows(path: Path) -> list[ItemRecord]:
    """The lines of an item file; `UsageError` names a broken one."""
    rows: list[ItemRecord] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row: ItemRecord = json.loads(line)
                rows.append(row | {"id": str(row["id"]), "value": row["value"]})
            except (ValueError, TypeError, KeyError) as error:
                raise UsageError(f"{path}:{number}: not an item record", "evaluate that stage again") from error
    return rows


def settings_of(scores: Mapping[str, object]) -> dict[str, dict[str, Json]]:
    """The settings that an evaluation recorded in its ``scores.json``, by unit; empty where it recorded none."""
    recorded = scores.get("settings")
    by_unit = recorded if isinstance(recorded, dict) else {}
    return {unit: settings for unit, settings in by_unit.items() if isinstance(settings, dict)}
