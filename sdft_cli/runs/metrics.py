"""``metrics.jsonl``: what training logs, one row per line, in the order in which it happened.

A run appends rows while it trains, so a reader must expect a torn last line, and repeated steps where it was resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sdft_cli.runs.files import write_whole
from sdft_cli.runs.records import EndingRow, EvalRow, GuardRow, MetricsRow, StageId, StepRow
from sdft_cli.types import Json


class Logged(NamedTuple):
    """Rows by kind, each list in the order of stages and steps; every row has its ``global_step``."""

    steps: list[StepRow]
    evals: list[EvalRow]
    endings: list[EndingRow]
    guards: list[GuardRow]


@dataclass(frozen=True)
class MetricsLog:
    """The log of one run; the file is created with the first row."""

    path: Path

    def append(self, row: MetricsRow) -> None:
        with self.path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")

    def rewind(self, stage: StageId, step: int) -> None:
        """Drop the rows after ``step`` of ``stage``, which a resumed run writes again, and lines cut off by a kill."""
        kept = []
        for line in self._lines():
            try:
                row: MetricsRow = json.loads(line)
            except json.JSONDecodeError:
                continue
            if (row["stage"], row["step"]) <= (stage.number, step):
                kept.append(line)
        if self.path.is_file():
            write_whole(self.path, "".join(line + "\n" for line in kept))

    def read(self) -> Logged:
        """All rows; none where nothing was logged yet.

        Torn lines are skipped. If two rows report on the same step (a run that was resumed before it), the last one
        counts.
        """
        rows: dict[str, dict[tuple[int, int, str], Json]] = {"step": {}, "eval": {}, "ending": {}, "guard": {}}
        for line in self._lines():
            try:
                row = json.loads(line)
                key = int(row["stage"]), int(row["step"]), str(row.get("guard", ""))
                rows[row["kind"]][key] = {"global_step": row["step"], **row}
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        in_order = {kind: [of_kind[key] for key in sorted(of_kind)] for kind, of_kind in rows.items()}
        return Logged(in_order["step"], in_order["eval"], in_order["ending"], in_order["guard"])

    def steps(self, stage: StageId, after: int = 0) -> list[StepRow]:
        """The step rows of ``stage`` after its step ``after``."""
        return [row for row in self.read().steps if row["stage"] == stage.number and row["step"] > after]

    def evals(self, stage: StageId) -> list[EvalRow]:
        """The mid-training evaluations of ``stage``."""
        return [row for row in self.read().evals if row["stage"] == stage.number]

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.is_file() else []


def validation(evals: Iterable[EvalRow], stages: int, endings: Iterable[EndingRow] = ()) -> tuple[float, int] | None:
    """Mean validation accuracy over ``stages`` stages, each on its own task at its end, and the items behind it.

    A stage's end is its last row of ``evals`` in the order logged or, where ``endings`` has it end with an earlier
    step's model, the row of that step. None where a stage has no such row, or none of its items could be scored.
    """
    chosen = {row["stage"]: row["model_of"] for row in endings}
    counted = [row for row in evals if row["step"] == chosen.get(row["stage"], row["step"])]
    last = {row["stage"]: row["scores"].get(row["task"]) for row in counted}
    scores = [score for stage in range(1, stages + 1) if (score := last.get(stage))]
    accuracies = [score["accuracy"] for score in scores if score["accuracy"] is not None]
    if not accuracies or len(accuracies) < stages:
        return None
    return sum(accuracies) / stages, sum(score["n"] for score in scores)
