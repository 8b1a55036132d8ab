"""Evaluations on disk, one folder per stage: ``evals/NN-<task>/{scores.json, <unit>.jsonl}``.

An item file has one graded completion per line. ``scores.json`` is written last: where it exists, the rest is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired

from sdft_cli.config import json_files
from sdft_cli.config.json_files import Record, Share
from sdft_cli.errors import UsageError, shown
from sdft_cli.runs.files import write_together
from sdft_cli.runs.records import ItemRecord, Scores, StageId, SuiteSummary, Summary
from sdft_cli.types import Json


class ComparedItem(Record):
    """What an item needs for two evaluations to be compared on it; any other tool may have written it."""

    id: str
    value: Share | None
    document: NotRequired[str | None]


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
        return read_scores(self.folder) if json_files.exists(self.folder / "scores.json") else None

    def write(self, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
        write_evaluation(self.folder, scores, items)


def write_evaluation(
    folder: Path, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]
) -> None:
    """Item files first, ``scores.json`` last: where it exists, they are complete."""
    write_together(evaluation_files(folder, scores, items))


def evaluation_files(
    folder: Path, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]
) -> dict[Path, str]:
    """What `write_evaluation` writes, in its order."""
    lines = {unit: "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows) for unit, rows in items.items()}
    files = {folder / f"{unit}.jsonl": text for unit, text in lines.items()}
    return {**files, folder / "scores.json": json.dumps(scores, indent=2) + "\n"}


# --- reading --------------------------------------------------------------------------------------------------------


def json_object(path: Path) -> dict[str, Json]:
    """The JSON object in a file that is only shown or copied; `UsageError` if the file holds anything else."""
    value: dict[str, Json] = json_files.read(path, dict[str, Json], "restore the file")
    return value


def read_scores(folder: Path) -> Scores:
    """The ``scores.json`` in an evaluation's folder; `UsageError` if it is broken."""
    scores: Scores = json_files.read(folder / "scores.json", Scores, hint(folder))
    return scores


def stage_folders(run: Path) -> dict[int, Path]:
    """The evaluated stages of a run by number: folders ``NN-<task>`` that hold a ``scores.json``."""
    folders: dict[int, Path] = {}
    for folder in sorted((run / "evals").glob("*-*")):
        if (match := re.match(r"(\d+)-", folder.name)) and json_files.exists(folder / "scores.json"):
            if twice := folders.get(int(match[1])):
                problem = f"{twice} and {folder} are both evaluations of stage {int(match[1])}"
                raise UsageError(problem, "move one of them away")
            folders[int(match[1])] = folder
    return dict(sorted(folders.items()))


def read_stages(run: Path) -> dict[int, Scores]:
    """``scores.json`` of every evaluated stage, by number."""
    return {stage: read_scores(folder) for stage, folder in stage_folders(run).items()}


def read_items(run: Path, stage: int, unit: str) -> list[ItemRecord]:
    """The items of one unit at one stage; empty where there are none, `UsageError` where the file is broken."""
    folder = stage_folders(run).get(stage)
    path = folder / f"{unit}.jsonl" if folder else None
    return item_rows(path) if path and json_files.exists(path) else []


def item_rows(path: Path, kind: type = ComparedItem) -> list[ItemRecord]:
    """The lines of an item file; `UsageError` names one that is no ``kind``, and two lines with the same item."""
    rows: list[ItemRecord] = []
    lines: dict[str, int] = {}
    what_to_do = hint(path.parent)
    for number, text in json_files.lines(path, what_to_do):
        row: ItemRecord = json_files.parse(text, kind, f"{path}:{number}", what_to_do)
        name = f"{row['id']} {row.get('part', '')} {row.get('sample', '')}"
        if (first := lines.setdefault(name, number)) != number:
            raise UsageError(f"{path}:{number}: item {shown(row['id'])} is also on line {first}", what_to_do)
        rows.append(row)
    return rows


def lost_items(unit: str, items: Sequence[ItemRecord], tasks: Mapping[str, Summary], suite: SuiteSummary | None) -> str:
    """How many of a unit's items were summarized, if not as many as there are; else nothing. A file that was cut off
    between two lines is broken too, and only its summary tells."""
    if suite and unit == f"suite-{suite['name']}":
        summaries = list(suite["parts"].values())
    else:
        summaries = [tasks[unit]] if unit in tasks else []
    counted = sum(summary["n"] + summary.get("unscored", 0) for summary in summaries)
    return f"{unit}: {counted} items were scored, and {len(items)} are there" if counted not in (0, len(items)) else ""


def hint(folder: Path) -> str:
    """How a broken evaluation is made anew; whatever is not there is measured again."""
    run = folder.parent.parent
    if folder.parent.name == "evals" and json_files.exists(run / "recipe.json"):
        return f"restore it, or delete {folder}: `sdft train --resume --out {run}` measures that stage again"
    return f"restore it, or delete {folder} and evaluate again"
