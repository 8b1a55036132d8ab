"""Evaluations on disk: ``evals/NN-<task>/{scores.json, <unit>.jsonl}``, one graded completion per line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdft_cli.runs.files import write_whole
from sdft_cli.runs.records import Scores, StageId


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
        scores: Scores = json.loads(path.read_text(encoding="utf-8"))
        return scores

    def write(self, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
        write_evaluation(self.folder, scores, items)


def write_evaluation(
    folder: Path, scores: Mapping[str, object], items: Mapping[str, Sequence[Mapping[str, object]]]
) -> None:
    """Item files first, ``scores.json`` last: where it exists, they are complete."""
    for unit, rows in items.items():
        write_whole(folder / f"{unit}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    write_whole(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
