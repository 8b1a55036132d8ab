"""What evaluations leave on disk: the scores and the graded items of each stage of a run. Only reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from sdft_cli.errors import UsageError
from sdft_cli.runs.records import ItemRecord, Scores
from sdft_cli.types import Json


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
