"""The rows of a run's ``metrics.jsonl`` by kind, and the validation accuracy they hold.

A run appends rows while it trains, so a reader must expect a torn last line, and repeated steps where it was resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sdft_cli.runs.records import EndingRow, EvalRow, GuardRow, StepRow
from sdft_cli.types import Json


class Logged(NamedTuple):
    """Rows by kind, each list in the order of stages and steps; every row has its ``global_step``."""

    steps: list[StepRow]
    evals: list[EvalRow]
    endings: list[EndingRow]
    guards: list[GuardRow]


def read_log(path: Path) -> Logged:
    """The rows of ``metrics.jsonl``; empty where there is no such file.

    Torn lines are skipped. If two rows report on the same step (a run that was resumed before it), the last one counts.
    """
    rows: dict[str, dict[tuple[int, int, str], Json]] = {"step": {}, "eval": {}, "ending": {}, "guard": {}}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
            key = int(row["stage"]), int(row["step"]), str(row.get("guard", ""))
            rows[row["kind"]][key] = {"global_step": row["step"], **row}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    in_order = {kind: [of_kind[key] for key in sorted(of_kind)] for kind, of_kind in rows.items()}
    return Logged(in_order["step"], in_order["eval"], in_order["ending"], in_order["guard"])


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
